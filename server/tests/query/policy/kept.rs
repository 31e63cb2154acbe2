//! 100 random pairs of people, policies and settings of sessions: nobody is given of the cache what is another's.

use std::collections::{BTreeMap, BTreeSet};

use nexus_flight_catalog::Kind;
use nexus_flight_catalog::policy::{Action, RuleText};
use nexus_server::query::CacheUse;

use super::oracle::{Oracle, random_rule};
use super::{Dice, Governed, PEOPLE, set};

const PAIRS: u64 = 100;

/// Statements over the tables `{t}` and `{u}`. Some hang on the zone, and some fail for who sees certain rows or misses a column.
const STATEMENTS: [&str; 10] = [
    "SELECT * FROM {t} ORDER BY 1",
    "SELECT count(*) AS c FROM {t}",
    "SELECT x FROM {t} WHERE x > 1 ORDER BY x",
    "SELECT y, sum(z) AS s FROM {t} GROUP BY y ORDER BY y",
    "SELECT 10 / (x - 2) AS v FROM {t} ORDER BY 1",
    "SELECT x, to_timestamp('2024-01-01 00:00:00') AS moment FROM {t} ORDER BY x",
    "SELECT CAST('2024-07-01 00:00:00' AS TIMESTAMP WITH TIME ZONE) AS moment, count(x) AS c FROM {t}",
    "SELECT x FROM {t} WHERE to_timestamp('2024-01-01 00:00:00') < to_timestamp('2024-01-01T00:00:00Z') ORDER BY x",
    "SELECT one.x AS x, two.z AS z FROM {t} AS one JOIN {u} AS two ON one.x = two.x ORDER BY 1",
    "SELECT x FROM {t} WHERE x IN (SELECT z / 10 FROM {u}) ORDER BY x",
];

/// What sessions set, or leave as it is.
const OPTIONS: [(&str, [&str; 2]); 6] = [
    ("time_zone", ["Asia/Shanghai", "-05:00"]),
    ("cache_tag", ["one", "two"]),
    ("max_rows", ["2", "1000"]),
    ("type_profile", ["native", "lowered"]),
    ("cache", ["max-age=3600", "max-stale"]),
    ("endpoints", ["1", "4"]),
];

/// Those on which an answer hangs that is kept.
const TELLING: [&str; 2] = ["time_zone", "cache_tag"];

/// Somebody in a session.
#[derive(Debug, Clone)]
struct Asker {
    who: &'static str,
    catalog: &'static str,
    options: BTreeMap<&'static str, &'static str>,
}

/// What makes one text a question, by an account that knows nothing of plans: the tables that its names mean, each with whose view
/// of it that is where something is hidden, and the settings.
type Question = (Vec<(String, Option<&'static str>)>, Vec<Option<&'static str>>);

impl Asker {
    fn random(dice: &mut Dice) -> Self {
        let (who, catalog) = (dice.one(&PEOPLE), if dice.is(70) { "a" } else { "b" });
        let mut options = BTreeMap::new();
        for (name, values) in OPTIONS {
            if dice.is(35) {
                options.insert(name, dice.one(&values));
            }
        }
        Self { who, catalog, options }
    }

    fn question(&self, tables: &[String], oracle: &Oracle<'_>) -> Question {
        let seen = tables.iter().map(|table| {
            let table = if table.contains('.') { table.clone() } else { format!("{}.main.{table}", self.catalog) };
            let whose = oracle.hides(self.who, &table).then_some(self.who);
            (table, whose)
        });
        (seen.collect(), TELLING.map(|name| self.options.get(name).copied()).to_vec())
    }

    /// What the cache had to do with the answer, and its lines in one order.
    async fn ask(&self, governed: &Governed, statement: &str) -> Result<(CacheUse, Vec<String>), Kind> {
        let mut query = governed.query(self.who, statement);
        (query.session.catalog, query.session.schema) = (self.catalog.to_owned(), "main".to_owned());
        for (name, value) in &self.options {
            query.session.options.set(name, Some(*value)).unwrap();
        }
        query.most = query.session.options.max_rows;
        let (cache, rows) = governed.answer(query).await.map_err(|error| error.kind())?;
        let mut lines: Vec<String> = rows.lines().map(str::to_owned).collect();
        lines.sort();
        Ok((cache, lines))
    }
}

/// Of what there has to be some, or the cases prove nothing.
#[derive(Debug, Default)]
struct Seen {
    hits_of_others: usize,
    others_told_apart: usize,
    refused: usize,
    answered: BTreeSet<usize>,
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_what_is_anothers() {
    let (cached, plain) = (Governed::new().await, Governed::with("[cache]\nsize = \"0\"\n").await);
    let (mut dice, mut seen) = (Dice(20_261_130), Seen::default());
    let opened = RuleText { tables: vec!["*.*.*".to_owned()], allow: [Action::Read].into(), ..RuleText::default() };
    for pair in 0..PAIRS {
        let mut rules: Vec<RuleText> = (0..1 + dice.below(3)).map(|_| random_rule(&mut dice)).collect();
        rules.extend(dice.is(70).then(|| opened.clone()));
        if dice.is(50) {
            let (users, filter) = (Some(set([dice.one(&PEOPLE)])), Some("x > 2".to_owned()));
            rules.insert(0, RuleText { users, filter, ..opened.clone() });
        }
        cached.rules(rules.clone());
        plain.rules(rules.clone());
        let oracle = Oracle(&rules);
        let one = Asker::random(&mut dice);
        // With the same settings as often as not.
        let two = Asker { who: dice.one(&PEOPLE), ..if dice.is(50) { one.clone() } else { Asker::random(&mut dice) } };
        for turn in 0..6 {
            let number = usize::try_from(dice.below(STATEMENTS.len() as u64)).unwrap();
            let (place, has_two) = (dice.one(&["", "a.main.", "b.main."]), STATEMENTS[number].contains("{u}"));
            let tables = ["t", "u"].into_iter().take(1 + usize::from(has_two)).map(|table| format!("{place}{table}"));
            let tables: Vec<String> = tables.collect();
            // Nobody has asked for just so many rows.
            let statement = format!("{} LIMIT {}", STATEMENTS[number], 1_000 + pair * 10 + turn);
            let statement = statement.replace("{t}", &format!("{place}t")).replace("{u}", &format!("{place}u"));
            let (mut begun, mut given) = (BTreeMap::new(), BTreeSet::new());
            let askers = if turn % 2 == 0 { [&one, &two] } else { [&two, &one] };
            for asker in askers.into_iter().chain(askers) {
                let said = format!("pair {pair}: {statement}\n{asker:?}\nof {askers:?}\n{rules:#?}");
                let question = asker.question(&tables, &oracle);
                let answer = asker.ask(&cached, &statement).await;
                let wanted = asker.ask(&plain, &statement).await;
                assert_eq!(answer.as_ref().map(|(_, lines)| lines), wanted.as_ref().map(|(_, lines)| lines), "{said}");
                match answer {
                    Ok((CacheUse::Hit, _)) => {
                        // It may have been given to somebody who was not to have all of it.
                        let first = begun.get(&question).unwrap_or_else(|| panic!("it is another's: {said}"));
                        seen.hits_of_others += usize::from(*first != asker.who);
                    }
                    Ok((cache, _)) => {
                        assert!(cache == CacheUse::Miss && !given.contains(&question), "{cache:?}: {said}");
                        seen.others_told_apart += usize::from(!given.is_empty());
                        seen.answered.insert(number);
                        given.insert(question.clone());
                    }
                    Err(_) => seen.refused += 1,
                }
                begun.entry(question).or_insert(asker.who);
            }
        }
    }
    assert!(seen.hits_of_others > 20 && seen.others_told_apart > 100 && seen.refused > 100, "{seen:?}");
    assert_eq!(seen.answered.len(), STATEMENTS.len(), "{seen:?}");
}
