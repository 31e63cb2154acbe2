//! Moments of texts. Of a column of texts DataFusion's `to_timestamp` gives moments without the zone that its type promises, which fails
//! where they become rows; the moments themselves are right.

use std::sync::Arc;

use arrow::array::{Array, make_array};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use crate::around::{Around, Wrapped};

const FUNCTIONS: [&str; 5] =
    ["to_timestamp", "to_timestamp_seconds", "to_timestamp_millis", "to_timestamp_micros", "to_timestamp_nanos"];

/// Has these functions of a state give what they promise.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for name in FUNCTIONS {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Wrapped(Zoned { inner }))))?;
    }
    Ok(())
}

/// The same moments, with the zone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Zoned {
    inner: Arc<ScalarUDF>,
}

impl Around for Zoned {
    fn inner(&self) -> &dyn ScalarUDFImpl {
        self.inner.inner().as_ref()
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(Wrapped(Self { inner: Arc::new(inner) })))
    }

    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let promised = args.return_field.data_type().clone();
        // Past the check of debug builds, which would fail here.
        let given = self.inner().invoke_with_args(args)?;
        let lacks_zone = |given: &DataType| match (given, &promised) {
            (DataType::Timestamp(given, None), DataType::Timestamp(promised, Some(_))) => given == promised,
            _ => false,
        };
        match given {
            ColumnarValue::Array(moments) if lacks_zone(moments.data_type()) => {
                let moments = moments.to_data().into_builder().data_type(promised).build()?;
                Ok(ColumnarValue::Array(make_array(moments)))
            }
            other => Ok(other),
        }
    }
}
