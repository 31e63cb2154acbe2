//! The metadata commands of Flight SQL: which schema each has, and who answers it.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::Command;
use datafusion::execution::context::SessionState;
use nexus_flight_catalog::{Catalogs, Context, Error, Result};

use crate::flight::metadata::{self, Facts, Functions, SqlInfos};
use crate::flight::profile::TypeProfile;

/// The schema of a metadata command's answer; none where the command is not about metadata.
pub fn schema(command: &Command) -> Option<SchemaRef> {
    Some(match command {
        Command::CommandGetCatalogs(_) => metadata::catalogs_schema(),
        Command::CommandGetDbSchemas(_) => metadata::db_schemas_schema(),
        Command::CommandGetTables(command) => metadata::tables_schema(command.include_schema),
        Command::CommandGetTableTypes(_) => metadata::table_types_schema(),
        Command::CommandGetSqlInfo(_) => SqlInfos::schema(),
        Command::CommandGetXdbcTypeInfo(_) => metadata::xdbc_type_info_schema(),
        Command::CommandGetPrimaryKeys(_) => metadata::primary_keys_schema(),
        Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
            metadata::foreign_keys_schema()
        }
        _ => return None,
    })
}

/// Answers metadata commands.
pub struct Metadata {
    infos: LazyLock<Result<SqlInfos>, MakeInfos>,
}

type MakeInfos = Box<dyn FnOnce() -> Result<SqlInfos> + Send>;

impl Metadata {
    /// With the facts of this server, which are asked for when the first client wants them: to tell the functions apart the
    /// documentation of all of them is made, which takes memory, and most processes are never asked.
    pub fn new(facts: impl FnOnce() -> Facts + Send + 'static) -> Self {
        let make: MakeInfos = Box::new(move || SqlInfos::new(facts()));
        Self { infos: LazyLock::new(make) }
    }

    /// The answer over catalogs; none where the command is not about metadata.
    pub async fn answer(
        &self,
        cx: &Context,
        catalogs: &Arc<Catalogs>,
        profile: TypeProfile,
        command: &Command,
    ) -> Result<Option<RecordBatch>> {
        Ok(Some(match command {
            Command::CommandGetCatalogs(command) => metadata::catalogs(catalogs, cx, command)?,
            Command::CommandGetDbSchemas(command) => metadata::db_schemas(catalogs, cx, command).await?,
            Command::CommandGetTables(command) => metadata::tables(catalogs, cx, profile, command).await?,
            Command::CommandGetTableTypes(command) => metadata::table_types(command)?,
            Command::CommandGetSqlInfo(command) => self.infos.as_ref().map_err(Error::copied)?.answer(command)?,
            Command::CommandGetXdbcTypeInfo(command) => metadata::xdbc_type_info(command)?,
            Command::CommandGetPrimaryKeys(command) => metadata::primary_keys(catalogs, cx, command).await?,
            Command::CommandGetExportedKeys(command) => metadata::exported_keys(catalogs, cx, command).await?,
            Command::CommandGetImportedKeys(command) => metadata::imported_keys(catalogs, cx, command).await?,
            Command::CommandGetCrossReference(command) => metadata::cross_reference(catalogs, cx, command).await?,
            _ => return Ok(None),
        }))
    }
}

/// The functions by the sections of their own documentation.
pub fn functions(state: &SessionState) -> Functions {
    let mut functions = Functions::default();
    for function in state.scalar_functions().values() {
        let list = match function.documentation().map(|documentation| documentation.doc_section.label) {
            Some("Math Functions") => &mut functions.numeric,
            Some("String Functions" | "Regular Expression Functions") => &mut functions.string,
            Some("Time and Date Functions") => &mut functions.datetime,
            _ => continue,
        };
        list.push(function.name().to_uppercase());
    }
    for list in [&mut functions.numeric, &mut functions.string, &mut functions.datetime] {
        // A function stands there under each of its names.
        list.sort();
        list.dedup();
    }
    functions
}
