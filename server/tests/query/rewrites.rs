//! The same question in other words, and what is nearly the same.

use nexus_flight_catalog::Version;
use nexus_server::query::CacheUse::{Hit, Miss};

use crate::fixture::{Fixture, memory, numbers};

/// A statement, others that ask the same, and some that do not.
struct Words {
    asked: &'static str,
    same: &'static [&'static str],
    other: &'static [&'static str],
}

const WORDS: [Words; 15] = [
    // Columns that are written out, and nodes that pass their rows on.
    Words {
        asked: "SELECT * FROM numbers",
        same: &[
            "select n.*from numbers as n -- all",
            "SELECT id, name FROM numbers",
            "SELECT (id) AS id, name FROM (SELECT * FROM (SELECT * FROM numbers) AS a) AS b",
            "SELECT k AS id, name FROM (SELECT id AS k, name FROM numbers)",
            "SELECT id, name FROM numbers OFFSET 0",
        ],
        other: &[
            "SELECT name, id FROM numbers",
            "SELECT name AS id, id AS name FROM numbers",
            "SELECT id FROM numbers",
            "SELECT id, name, id AS k FROM numbers",
            "SELECT * FROM numbers OFFSET 1",
        ],
    },
    Words {
        asked: "SELECT id FROM numbers ORDER BY id LIMIT 2",
        same: &[
            "SELECT id FROM numbers ORDER BY id LIMIT 2 OFFSET 0",
            "SELECT id FROM numbers ORDER BY id ASC NULLS LAST LIMIT 2",
        ],
        other: &["SELECT id FROM numbers ORDER BY id LIMIT 2 OFFSET 1", "SELECT id FROM numbers ORDER BY id LIMIT 3"],
    },
    // Comparisons from both sides.
    Words {
        asked: "SELECT id FROM numbers WHERE id < 3",
        same: &["SELECT id FROM numbers WHERE 3 > id", "SELECT id FROM numbers WHERE ((id) < (3))"],
        other: &[
            "SELECT id FROM numbers WHERE 3 < id",
            "SELECT id FROM numbers WHERE 3 >= id",
            "SELECT id FROM numbers WHERE id <> 3",
        ],
    },
    Words {
        asked: "SELECT a.id AS x FROM numbers a JOIN numbers b ON a.name = b.name",
        same: &["SELECT b.id AS x FROM numbers b JOIN numbers a ON a.name = b.name"],
        other: &["SELECT b.id AS x FROM numbers a JOIN numbers b ON a.name <> b.name"],
    },
    Words {
        asked: "SELECT id FROM numbers WHERE name IS DISTINCT FROM 'n1'",
        same: &["SELECT id FROM numbers WHERE 'n1' IS DISTINCT FROM name"],
        other: &["SELECT id FROM numbers WHERE 'n1' IS NOT DISTINCT FROM name", "SELECT id FROM numbers WHERE 'n1' <> name"],
    },
    // Conditions that cannot fail, in any order.
    Words {
        asked: "SELECT id FROM numbers WHERE id > 1 AND name = 'n2' AND id < 9",
        same: &[
            "SELECT id FROM numbers WHERE id < 9 AND (name = 'n2' AND id > 1)",
            "SELECT id FROM numbers WHERE 9 > id AND id > 1 AND 'n2' = name AND id > 1",
        ],
        other: &[
            "SELECT id FROM numbers WHERE id > 1 AND (name = 'n2' OR id < 9)",
            "SELECT id FROM numbers WHERE id > 1 OR name = 'n2' OR id < 9",
            "SELECT id FROM numbers WHERE id > 1 AND name = 'n2'",
            "SELECT id FROM numbers WHERE id > 9 AND name = 'n2' AND id < 1",
        ],
    },
    Words {
        asked: "SELECT id FROM numbers WHERE id = 1 OR (name IS NULL AND id > 1) OR name = 'n2'",
        same: &["SELECT id FROM numbers WHERE name = 'n2' OR id = 1 OR (id > 1 AND name IS NULL)"],
        other: &["SELECT id FROM numbers WHERE (name = 'n2' OR id = 1 OR id > 1) AND name IS NULL"],
    },
    // What can fail stays behind what keeps it from that.
    Words {
        asked: "SELECT id FROM numbers WHERE id <> 0 AND 10 / id > 3",
        same: &["SELECT id FROM numbers WHERE 0 <> id AND 3 < 10 / id"],
        other: &["SELECT id FROM numbers WHERE 10 / id > 3 AND id <> 0"],
    },
    // A column of a sub-query is one, whatever it is made of: when that is worked out no order of the conditions says.
    Words {
        asked: "SELECT id FROM (SELECT id, 10 / id AS q FROM numbers) WHERE id <> 0 AND q > 3",
        same: &["SELECT id FROM (SELECT id, 10 / id AS q FROM numbers) WHERE 3 < q AND id <> 0"],
        other: &["SELECT id FROM (SELECT id, 10 / id AS q FROM numbers) WHERE id <> 0 OR q > 3"],
    },
    Words {
        asked: "SELECT id FROM numbers WHERE id BETWEEN 1 AND 2",
        same: &[
            "SELECT id FROM numbers WHERE id >= 1 AND id <= 2",
            "SELECT id FROM numbers WHERE 2 >= id AND 1 <= id AND id BETWEEN 1 AND 2",
        ],
        other: &[
            "SELECT id FROM numbers WHERE id BETWEEN 2 AND 1",
            "SELECT id FROM numbers WHERE id > 1 AND id <= 2",
            "SELECT id FROM numbers WHERE id NOT BETWEEN 1 AND 2",
        ],
    },
    Words {
        asked: "SELECT id FROM numbers WHERE id NOT BETWEEN 1 AND 2",
        same: &["SELECT id FROM numbers WHERE id > 2 OR id < 1"],
        other: &["SELECT id FROM numbers WHERE id >= 2 OR id < 1", "SELECT id FROM numbers WHERE id > 2 AND id < 1"],
    },
    Words {
        asked: "SELECT id FROM numbers WHERE id BETWEEN 10 / id AND 9",
        same: &["SELECT id FROM numbers WHERE id >= 10 / id AND id <= 9"],
        other: &[
            "SELECT id FROM numbers WHERE id <= 9 AND id >= 10 / id",
            "SELECT id FROM numbers WHERE id NOT BETWEEN 10 / id AND 9",
        ],
    },
    // What stands in more than a name is gone through once.
    Words {
        asked: "SELECT id FROM numbers WHERE 10 / id BETWEEN 4 AND 9",
        same: &["SELECT id FROM numbers WHERE (10 / id) BETWEEN 4 AND 9"],
        other: &[
            "SELECT id FROM numbers WHERE 10 / id >= 4 AND 10 / id <= 9",
            "SELECT id FROM numbers WHERE 10 / id NOT BETWEEN 4 AND 9",
        ],
    },
    Words {
        asked: "SELECT id FROM numbers WHERE id IN (1, 2, 1, 5)",
        same: &["SELECT id FROM numbers WHERE id IN (5, 2, 1)"],
        other: &[
            "SELECT id FROM numbers WHERE id IN (1, 2)",
            "SELECT id FROM numbers WHERE id IN (1, 2, 5, NULL)",
            "SELECT id FROM numbers WHERE id NOT IN (1, 2, 5)",
        ],
    },
    // Casts to what is there.
    Words {
        asked: "SELECT id, CAST(id AS DOUBLE) AS d FROM numbers",
        same: &["SELECT CAST(id AS BIGINT) AS id, CAST(CAST(id AS DOUBLE) AS DOUBLE) AS d FROM numbers"],
        other: &[
            "SELECT id, CAST(id AS REAL) AS d FROM numbers",
            "SELECT CAST(id AS INT) AS id, CAST(id AS DOUBLE) AS d FROM numbers",
            "SELECT id, CAST(CAST(id AS REAL) AS DOUBLE) AS d FROM numbers",
        ],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_same_meets_one_entry_and_what_is_nearly_so_does_not() {
    for Words { asked, same, other } in WORDS {
        let fixture = Fixture::new("");
        let (cache, rows) = fixture.run(asked).await.unwrap();
        assert_eq!(cache, Miss, "{asked}");
        for words in same {
            assert_eq!(fixture.run(words).await.unwrap(), (Hit, rows.clone()), "{asked}\n{words}");
        }
        for words in other {
            assert_eq!(fixture.run(words).await.unwrap().0, Miss, "{asked}\n{words}");
        }
    }
}

/// Floats: how many values there are decides how they are looked for.
#[tokio::test(flavor = "multi_thread")]
async fn floats_are_counted() {
    let fixture = Fixture::new("");
    let of = |values: &str| format!("SELECT id FROM numbers WHERE CAST(id AS DOUBLE) IN ({values})");
    for (values, wanted) in [("1 2 3 2", Miss), ("3 2 2 1", Hit), ("3 2 1", Miss)] {
        let values: Vec<String> = values.split(' ').map(|value| format!("CAST({value} AS DOUBLE)")).collect();
        assert_eq!(fixture.run(&of(&values.join(", "))).await.unwrap().0, wanted, "{values:?}");
    }
}

/// The tables of the sides of a comparison have changed places, and so have their versions.
#[tokio::test(flavor = "multi_thread")]
async fn the_versions_of_tables_are_told_apart() {
    let fixture = Fixture::new("");
    let put = |name: &str, version: &str, ids: &[i64]| {
        fixture.source.put_resolved(name, Version::Pinned(version.to_owned()), memory(numbers(ids)));
    };
    put("numbers", "a", &[1]);
    put("other", "b", &[2]);
    let of = |one: &str, two: &str| format!("SELECT (SELECT max(id) FROM {one}) < (SELECT max(id) FROM {two}) AS is_less");
    assert!(fixture.rows(&of("numbers", "other")).await.contains("true"));
    put("numbers", "b", &[4]);
    put("other", "a", &[3]);
    for (one, two, wanted) in [("numbers", "other", "false"), ("other", "numbers", "true")] {
        let (cache, rows) = fixture.run(&of(one, two)).await.unwrap();
        assert!(cache == Miss && rows.contains(wanted), "{one}, {two}: {cache:?}\n{rows}");
    }
    let mirrored = "SELECT (SELECT max(id) FROM other) > (SELECT max(id) FROM numbers) AS is_less";
    assert!(fixture.rows(mirrored).await.contains("false"));
}
