//! What is parsed and what is refused, with the places of errors.

use proptest::prelude::*;

use super::super::shape::{Shape, TextLimits};
use super::*;

const LIMITS: TextLimits = TextLimits { tokens: 4_000, nesting: 40 };

fn parsed(text: &str) -> Result<Query, SqlError> {
    let shape = Shape::of(text, LIMITS)?;
    let lifted = parse(text, shape.lifted(), LIMITS.nesting);
    let plain = parse(text, shape.tokens, LIMITS.nesting);
    assert_eq!(plain.is_ok(), lifted.is_ok(), "taking literals out does not change what parses: {text}");
    plain
}

#[test]
fn all_clauses_are_read() {
    let query = parsed(
        "select channel as c, sum(gmv) / 2 total, * from gmv_hour g where merchant_id = 42 and not (a < 3) \
         group by channel, 2 having sum(gmv) > 1.5 order by total desc nulls last, 1 asc, c limit 5 offset 2;",
    )
    .expect("a query");
    assert_eq!(query.items.len(), 3);
    assert!(matches!(query.items[2], Item::All(_)));
    assert_eq!((query.table.value.as_str(), query.table_alias.expect("an alias").value.as_str()), ("gmv_hour", "g"));
    assert_eq!((query.group_by.len(), query.order_by.len()), (2, 3));
    let orders: Vec<_> = query.order_by.iter().map(|item| (item.descending, item.nulls_first)).collect();
    assert_eq!(orders, [(true, Some(false)), (false, None), (false, None)]);
    assert!(query.having.is_some() && query.limit.is_some() && query.offset.is_some());
}

#[test]
fn everything_else_is_refused_at_its_place() {
    for (text, column, message) in [
        ("select", 7, "expected an expression"),
        ("select from t", 8, "expected an expression"),
        ("select a", 9, "from"),
        ("select a from", 14, "name of a metric table"),
        ("select a from 5", 15, "name of a metric table"),
        ("select a from t.u", 16, "plain name"),
        ("select a from t, u", 16, "joins are not supported"),
        ("select a from t join u on t.a = u.a", 17, "joins are not supported"),
        ("select a from t left join u using (a)", 17, "joins are not supported"),
        ("select a from t where", 22, "expected an expression"),
        ("select a from t where a = 1 limit 5 group by a", 37, "in this order"),
        ("select a from t union all values (1)", 17, "set operations"),
        ("select a from t order by a nulls", 33, "first or last"),
        ("select a from t; select b from t", 18, "one select only"),
        ("select a from t; drop table t", 18, "one statement"),
        ("select distinct a from t", 8, "use group by"),
        ("select a a a from t", 12, "from"),
        ("select a from t where (a = 1", 29, "expected"),
        ("select a from t fetch first 1 row only", 17, "use limit"),
    ] {
        let error = parsed(text).expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn pathological_texts_are_errors_and_never_exhaust_the_stack() {
    let megabyte = 1 << 20;
    for piece in [
        "(",
        "not ",
        "- ",
        "case when ",
        "a + ",
        "a or ",
        "f(",
        "[",
        "array<",
        "cast(a as ",
        "a.",
        "'",
        "\"",
        "/*",
        "::int",
        "a in (",
        "a between ",
        "interval ",
        "extract(a from ",
        "a is not null and ",
        "x'",
        "e'\\",
        "$$",
        ";",
        "{",
        "a::",
    ] {
        for length in [50, 3_900, megabyte] {
            let text = format!("select {}", piece.repeat(length / piece.len() + 1));
            // A stack as small as an HTTP worker's.
            let worker = std::thread::Builder::new().stack_size(1 << 20);
            let run = worker.spawn(move || drop(parsed(&text))).expect("a thread");
            run.join().unwrap_or_else(|_| panic!("{piece} × {length}"));
        }
    }
}

proptest! {
    #[test]
    fn random_texts_never_panic(text in "\\PC{0,60}") {
        let _ = parsed(&text);
    }

    #[test]
    fn random_words_never_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "select", "from", "where", "group", "by", "order", "limit", "case", "when", "then", "end", "(", ")", ",",
                "*", "+", "-", "/", "=", "<", ">", "'a'", "1", "1.5", "a", "t", "and", "or", "not", "in", "between",
                "like", "is", "null", "interval", "date", "cast", "as", "int", "::", ".", "count", "sum", "over",
                "filter", "nulls", "first", "extract", "now", "timestamp", "decimal", "\"q\"", ";", "exists", "any",
                "trim", "substring", "position", "at", "time", "zone", "collate", "within", "distinct", "all",
            ]),
            0..40,
        ),
    ) {
        let _ = parsed(&format!("select {}", words.join(" ")));
    }
}
