CREATE OR REPLACE TABLE adbc_alltypes AS
SELECT * FROM (VALUES
    (CAST(42 AS BIGINT), CAST('abcd' AS BYTEA), TRUE, DATE '2000-01-01', CAST(42 AS INT), CAST(42 AS SMALLINT), 'foo',
     CAST('04:05:06.123456' AS TIME), TIMESTAMP '2000-01-02 03:04:05.123', TIMESTAMPTZ '2000-01-02 03:04:05.123+06:00'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) AS t (bigint_t, blob_t, boolean_t, date_t, int_t, smallint_t, text_t, time_without_time_zone_t,
        timestamp_without_time_zone_t, timestamp_with_time_zone_t)
