//! Types by names that DataFusion does not know: those of the standard (ISO/IEC 9075-2, predefined type) that drivers write where
//! PostgreSQL has `TEXT` and `BYTEA`, and `DATETIME`, which tools write for a timestamp of any year. A length in them bounds nothing, as that
//! of a `VARCHAR` does not.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as Written, ExactNumberInfo};

/// Knows the types that DataFusion does not.
#[derive(Debug)]
pub struct MoreTypes;

impl TypePlanner for MoreTypes {
    fn plan_type(&self, written: &Written) -> Result<Option<DataType>> {
        Ok(match written {
            Written::Clob(_) | Written::CharLargeObject(_) | Written::CharacterLargeObject(_) | Written::Nvarchar(_) => {
                Some(DataType::Utf8)
            }
            Written::Blob(_) | Written::Binary(_) | Written::Varbinary(_) => Some(DataType::Binary),
            // A precision is in bits, of which 24 are those of REAL (ISO/IEC 9075-2, approximate numeric type).
            Written::Float(ExactNumberInfo::Precision(bits)) if *bits > 24 => Some(DataType::Float64),
            Written::Datetime(_) => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
            _ => None,
        })
    }
}
