//! `overlay` by the standard (ISO/IEC 9075-2, character overlay function), in characters. DataFusion's counts bytes where it
//! cuts, so that it fails for text beyond ASCII.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericStringArray, Int64Array, OffsetSizeTrait};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use nexus_flight_catalog::Error;

/// Puts a text in the place of some characters of another; NULL where an argument is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Overlay {
    signature: Signature,
}

impl Default for Overlay {
    fn default() -> Self {
        let text = |text: DataType| {
            let mut types = vec![text.clone(), text, DataType::Int64];
            let short = TypeSignature::Exact(types.clone());
            types.push(DataType::Int64);
            [short, TypeSignature::Exact(types)]
        };
        let both = [DataType::Utf8, DataType::LargeUtf8].into_iter().flat_map(text).collect();
        Self { signature: Signature::one_of(both, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Overlay {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "overlay"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(if types.contains(&DataType::LargeUtf8) { DataType::LargeUtf8 } else { DataType::Utf8 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = args.return_field.data_type();
        // A NULL that is written may have no type.
        let wanted = [text, text, &DataType::Int64, &DataType::Int64];
        let arrays = arrays.iter().zip(wanted).map(|(array, wanted)| Ok(cast(array, wanted)?)).collect::<Result<Vec<_>>>()?;
        let laid: ArrayRef = match text {
            DataType::LargeUtf8 => Arc::new(all::<i64>(&arrays)?),
            _ => Arc::new(all::<i32>(&arrays)?),
        };
        if is_scalar && laid.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&laid, 0)?));
        }
        Ok(ColumnarValue::Array(laid))
    }
}

fn all<O: OffsetSizeTrait>(arrays: &[ArrayRef]) -> Result<GenericStringArray<O>> {
    let [texts, others, starts, lengths @ ..] = arrays else {
        return Err(Error::internal("overlay was given too few arguments").into());
    };
    let (texts, others): (&GenericStringArray<O>, &GenericStringArray<O>) = (texts.as_string(), others.as_string());
    let starts: &Int64Array = starts.as_primitive::<Int64Type>();
    let lengths: Option<&Int64Array> = lengths.first().map(|lengths| lengths.as_primitive::<Int64Type>());
    let rows = texts.iter().zip(others).zip(starts).enumerate();
    let laid = rows.map(|(row, ((text, other), start))| {
        let (Some(text), Some(other), Some(start)) = (text, other, start) else { return Ok(None) };
        let length = match lengths {
            Some(lengths) if lengths.is_null(row) => return Ok(None),
            Some(lengths) => lengths.value(row),
            None => i64::try_from(other.chars().count()).unwrap_or(i64::MAX),
        };
        if start < 1 {
            return Err(Error::invalid(format!("overlay begins at character {start}, the first one is 1")).into());
        }
        let before = up_to(text, start - 1).0;
        let after = up_to(text, (start - 1).saturating_add(length)).1;
        Ok(Some([before, other, after].concat()))
    });
    laid.collect()
}

/// The first characters of a text, and the others.
fn up_to(text: &str, characters: i64) -> (&str, &str) {
    let characters = usize::try_from(characters).unwrap_or(0);
    let at = text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    text.split_at_checked(at).unwrap_or((text, ""))
}
