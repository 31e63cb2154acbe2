//! `GetSqlInfo`: what this server is and what its SQL can do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, UnionArray};
use arrow::datatypes::{DataType, Schema, SchemaRef, UnionFields};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction,
    SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
use nexus_flight_catalog::{Error, Result};

use super::own_fault;
use crate::substrait;

/// What the answers depend on.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The functions that statements can call.
    pub functions: Functions,
    /// The most bytes of a statement.
    pub longest: usize,
    /// The most tables of a statement.
    pub tables: u64,
    /// How long a prepared statement lives after its last use.
    pub prepared_timeout: Duration,
    /// How long a transaction may be left alone.
    pub transaction_timeout: Duration,
    /// Whether statements may write to any catalog.
    pub writable: bool,
}

/// The names of the functions, by what JDBC calls them.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    /// Of numbers.
    pub numeric: Vec<String>,
    /// Of texts.
    pub string: Vec<String>,
    /// Of dates and times.
    pub datetime: Vec<String>,
    /// Of the session and the server.
    pub system: Vec<String>,
}

/// All the answers, made once.
pub struct SqlInfos(SqlInfoData);

impl SqlInfos {
    /// The answers of this server.
    pub fn new(facts: Facts) -> Result<Self> {
        let mut infos = SqlInfoDataBuilder::new();
        let (longest, tables) = (facts.longest, facts.tables);
        server(&mut infos, &facts);
        words(&mut infos, facts.functions);
        grammar(&mut infos);
        limits(&mut infos, longest, tables);
        transactions_and_results(&mut infos);
        Ok(Self(infos.build().map_err(own_fault)?))
    }

    /// The schema of [`SqlInfos::answer`].
    pub fn schema() -> SchemaRef {
        let fields = SqlInfoDataBuilder::schema().fields().iter().map(|field| match field.data_type() {
            DataType::Union(fields, mode) => {
                let data_type = DataType::Union(not_null(fields), *mode);
                field.as_ref().clone().with_data_type(data_type)
            }
            _ => field.as_ref().clone(),
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The answers that the command asks for, in the order of their numbers; all where it names none. A number that means
    /// nothing here has no answer.
    pub fn answer(&self, command: &CommandGetSqlInfo) -> Result<RecordBatch> {
        let batch = if command.info.is_empty() {
            self.0.record_batch(None)
        } else {
            // Only numbers that exist are looked for, each once: a client may send any number of any numbers.
            let exists = |info: &u32| i32::try_from(*info).is_ok_and(|info| SqlInfo::try_from(info).is_ok());
            let known: BTreeSet<u32> = command.info.iter().copied().filter(exists).collect();
            // To look for nothing would mean all.
            if known.is_empty() { self.0.record_batch([u32::MAX]) } else { self.0.record_batch(known) }
        };
        let batch = batch.map_err(own_fault)?;
        let values = batch.column(1).as_union_opt().ok_or_else(|| Error::internal("the values of an answer are no union"))?;
        let (fields, kinds, offsets, children) = values.clone().into_parts();
        let values = UnionArray::try_new(not_null(&fields), kinds, offsets, children)?;
        Ok(RecordBatch::try_new(Self::schema(), vec![Arc::clone(batch.column(0)), Arc::new(values)])?)
    }
}

/// The members of a union, none of which is NULL: the clients of other languages expect it so.
fn not_null(fields: &UnionFields) -> UnionFields {
    fields.iter().map(|(id, field)| (id, Arc::new(field.as_ref().clone().with_nullable(false)))).collect()
}

fn server(infos: &mut SqlInfoDataBuilder, facts: &Facts) {
    infos.append(SqlInfo::FlightSqlServerName, "nexus-gateway");
    infos.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    infos.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    infos.append(SqlInfo::FlightSqlServerReadOnly, !facts.writable);
    infos.append(SqlInfo::FlightSqlServerSql, true);
    infos.append(SqlInfo::FlightSqlServerSubstrait, true);
    infos.append(SqlInfo::FlightSqlServerSubstraitMinVersion, substrait::version().as_str());
    infos.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, substrait::version().as_str());
    infos.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::Savepoint as i32);
    infos.append(SqlInfo::FlightSqlServerCancel, true);
    infos.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    infos.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    let milliseconds = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    infos.append(SqlInfo::FlightSqlServerStatementTimeout, milliseconds(facts.prepared_timeout));
    infos.append(SqlInfo::FlightSqlServerTransactionTimeout, milliseconds(facts.transaction_timeout));
}

fn words(infos: &mut SqlInfoDataBuilder, functions: Functions) {
    infos.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    infos.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Between quotes a name is taken as it is, for which the list of answers has no word.
    infos.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    infos.append(SqlInfo::SqlKeywords, ALL_KEYWORDS);
    infos.append(SqlInfo::SqlNumericFunctions, functions.numeric);
    infos.append(SqlInfo::SqlStringFunctions, functions.string);
    infos.append(SqlInfo::SqlDatetimeFunctions, functions.datetime);
    infos.append(SqlInfo::SqlSystemFunctions, functions.system);
    infos.append(SqlInfo::SqlSearchStringEscape, "\\");
    infos.append(SqlInfo::SqlExtraNameCharacters, "@$#");
    infos.append(SqlInfo::SqlSchemaTerm, "schema");
    infos.append(SqlInfo::SqlProcedureTerm, "procedure");
    infos.append(SqlInfo::SqlCatalogTerm, "catalog");
    infos.append(SqlInfo::SqlCatalogAtStart, true);
}

fn grammar(infos: &mut SqlInfoDataBuilder) {
    infos.append(SqlInfo::SqlDdlCatalog, false);
    infos.append(SqlInfo::SqlDdlSchema, false);
    infos.append(SqlInfo::SqlDdlTable, true);
    infos.append(SqlInfo::SqlAllTablesAreSelectable, true);
    infos.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    infos.append(SqlInfo::SqlSupportsColumnAliasing, true);
    infos.append(SqlInfo::SqlNullPlusNullIsNull, true);
    infos.append(SqlInfo::SqlSupportsConvert, conversions());
    infos.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    infos.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    infos.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    infos.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by = [SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32];
    infos.append(SqlInfo::SqlSupportedGroupBy, bits(&group_by));
    infos.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    infos.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar as i32, SupportedSqlGrammar::SqlCoreGrammar as i32];
    infos.append(SqlInfo::SqlSupportedGrammar, bits(&grammar));
    // The entry level, whose enumeration arrow-flight does not export.
    infos.append(SqlInfo::SqlAnsi92SupportedLevel, bits(&[0]));
    infos.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    // An ordinal by the specification; the JDBC driver reads bits, as its server's builder writes them.
    let joins = [SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32];
    infos.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(&joins));
    infos.append(SqlInfo::SqlSchemasSupportedActions, bits(&[]));
    infos.append(SqlInfo::SqlCatalogsSupportedActions, bits(&[]));
    infos.append(SqlInfo::SqlSupportedPositionedCommands, bits(&[]));
    infos.append(SqlInfo::SqlSelectForUpdateSupported, false);
    infos.append(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ];
    infos.append(SqlInfo::SqlSupportedSubqueries, bits(&subqueries));
    infos.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    infos.append(
        SqlInfo::SqlSupportedUnions,
        bits(&[SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]),
    );
    infos.append(SqlInfo::SqlNamedParametersSupported, false);
    infos.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// What has no limit of its own has 0.
fn limits(infos: &mut SqlInfoDataBuilder, longest: usize, tables: u64) {
    infos.append(SqlInfo::SqlMaxStatementLength, i64::try_from(longest).unwrap_or(i64::MAX));
    infos.append(SqlInfo::SqlMaxTablesInSelect, i64::try_from(tables).unwrap_or(i64::MAX));
    for limit in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        infos.append(limit, 0_i64);
    }
    infos.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

fn transactions_and_results(infos: &mut SqlInfoDataBuilder) {
    // These are what JDBC reads, whose driver ends a transaction without telling the server: to say that there are some would
    // lose what a program believes to have rolled back. Other clients read `FlightSqlServerTransaction`.
    let none = SqlTransactionIsolationLevel::SqlTransactionNone as i32;
    // An int32 by the specification; the JDBC driver casts to the other integer and throws if it is not that.
    infos.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(none));
    infos.append(SqlInfo::SqlTransactionsSupported, false);
    infos.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits(&[none]));
    infos.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    infos.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    let forward_only = SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32;
    infos.append(SqlInfo::SqlSupportedResultSetTypes, bits(&[forward_only]));
    let read_only = SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32;
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, bits(&[]));
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, bits(&[read_only]));
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, bits(&[]));
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, bits(&[]));
    infos.append(SqlInfo::SqlBatchUpdatesSupported, true);
    infos.append(SqlInfo::SqlSavepointsSupported, false);
    infos.append(SqlInfo::SqlLocatorsUpdateCopy, false);
}

fn bits(values: &[i32]) -> i32 {
    values.iter().fold(0, |mask, value| mask | 1 << value)
}

/// What `CAST` converts into what.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as C;
    let numbers = [
        C::SqlConvertBigint,
        C::SqlConvertBit,
        C::SqlConvertDecimal,
        C::SqlConvertFloat,
        C::SqlConvertInteger,
        C::SqlConvertNumeric,
        C::SqlConvertReal,
        C::SqlConvertSmallint,
        C::SqlConvertTinyint,
    ];
    let texts = [C::SqlConvertChar, C::SqlConvertLongvarchar, C::SqlConvertVarchar];
    let bytes = [C::SqlConvertBinary, C::SqlConvertLongvarbinary, C::SqlConvertVarbinary];
    let times = [C::SqlConvertDate, C::SqlConvertTime, C::SqlConvertTimestamp];
    let codes = |groups: &[&[C]]| {
        let mut codes: Vec<i32> = groups.iter().flat_map(|group| group.iter().map(|code| *code as i32)).collect();
        codes.sort_unstable();
        codes
    };
    let mut map = BTreeMap::new();
    for number in numbers {
        map.insert(number as i32, codes(&[&numbers, &texts]));
    }
    for text in texts {
        map.insert(text as i32, codes(&[&numbers, &texts, &bytes, &times]));
    }
    for kind in bytes {
        map.insert(kind as i32, codes(&[&bytes, &texts]));
    }
    map.insert(C::SqlConvertDate as i32, codes(&[&texts, &[C::SqlConvertDate, C::SqlConvertTimestamp]]));
    map.insert(C::SqlConvertTime as i32, codes(&[&texts, &[C::SqlConvertTime]]));
    map.insert(C::SqlConvertTimestamp as i32, codes(&[&texts, &times]));
    map
}
