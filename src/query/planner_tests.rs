//! What plans are made of, and where errors point.

use super::*;
use crate::query::fixture::catalog;
use crate::query::plans::Plans;
use crate::query::settings::Settings;

fn plans() -> Plans {
    Plans::new(catalog(), &Settings::for_tests())
}

fn columns_of(text: &str) -> Vec<String> {
    let prepared = plans().prepare(text).unwrap_or_else(|error| panic!("{error}"));
    let fields = prepared.plan.schema.fields().iter();
    fields.map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect()
}

#[test]
fn columns_have_the_names_and_types_that_people_expect() {
    for (text, expected) in [
        (
            "select * from gmv_hour",
            "window_start timestamp, merchant_id int, channel text, orders int, gmv decimal(38,2)",
        ),
        ("select channel, sum(gmv) from gmv_hour group by channel", "channel text, sum decimal(38,2)"),
        ("select sum(orders) as n, count(*) from gmv_day", "n decimal(38,0), count int"),
        ("select avg(gmv), max(window_start) m from gmv_hour", "avg decimal(38,6), m timestamp"),
        ("select count(distinct channel) as c, GMV_HOUR.Channel from gmv_hour group by 2", "c int, channel text"),
        ("select g.channel, 1 + 1, cast(orders as text) from gmv_hour g", "channel text, column2 int, orders text"),
        (
            "select date_trunc('day', window_start) as d, sum(gmv) s from gmv_hour group by d",
            "d timestamp, s decimal(38,2)",
        ),
        ("select orders / 2 as half from gmv_hour order by orders / 2", "half decimal(38,6)"),
    ] {
        let found = columns_of(text).join(", ");
        if text.contains("half") {
            assert!(found.starts_with("half decimal("), "{found}");
        } else {
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn errors_point_at_their_place() {
    for (text, column, message) in [
        ("select chanel from gmv_hour", 8, "chanel"),
        ("select channel, sum(gmv) from gmv_hour", 8, "must be in group by"),
        ("select channel from gmv_hour group by merchant_id", 8, "must be in group by"),
        ("select sum(gmv) from gmv_hour having orders > 1", 38, "must be in group by"),
        ("select sum(gmv) from gmv_hour where sum(gmv) > 1", 37, "having"),
        ("select sum(sum(gmv)) from gmv_hour", 12, "nested"),
        ("select sum(channel) from gmv_hour", 12, "needs numbers"),
        ("select channel from gmv_hour where orders", 36, "bool"),
        ("select channel from gmv_hour where channel > 5", 46, "int"),
        ("select channel from gmv_hour order by 2", 39, "1 to 1"),
        ("select channel from gmv_hour group by 0", 39, "1 to 1"),
        ("select sum(gmv) from gmv_hour group by 1", 40, "cannot be grouped by"),
        ("select channel from gmv_hour limit 'a'", 36, "needs an int"),
        ("select channel from gmv_hour limit orders", 36, ""),
        ("select other.channel from gmv_hour", 8, "only table here"),
        ("select channel from gmv_hour order by _key0", 39, "_key0"),
        ("select no_such(channel) from gmv_hour", 8, "no_such"),
        ("select sum(gmv) over () from gmv_hour", 8, "window"),
        ("select window_start + interval '1 fortnight' from gmv_hour", 0, "interval"),
        ("select * from gmv_hour where window_start > '2026-13-01'", 0, "2026-13-01"),
    ] {
        match plans().prepare(text) {
            Err(QueryError::Sql(error)) => {
                assert!(error.message.contains(message), "{text}\n{error}");
                assert!(column == 0 || error.column == column, "{text}\n{error}");
            }
            // A value that no plan can know to be wrong is explained once it is met.
            Ok(prepared) => {
                let calendar = crate::model::window::Calendar::utc();
                let context = crate::model::expr::Context { params: &prepared.params, now_us: 0, calendar: &calendar };
                let error = prepared.plan.bind(&context).expect_err(text);
                assert!(plans().explain(text, error).to_string().contains(message), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_table_is_told_with_the_names_near_it() {
    match plans().prepare("select a from gmv_hours") {
        Err(QueryError::UnknownTable { error, near }) => {
            assert_eq!((error.column, near), (15, vec!["gmv_hour".to_owned()]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn texts_of_one_shape_share_a_plan_and_keep_their_values() {
    let plans = plans();
    let text = |merchant: i64, limit: i64| {
        format!(
            "select sum(gmv) from gmv_hour where merchant_id = {merchant} and channel <> 'x{merchant}' limit {limit}"
        )
    };
    let (one, two) = (plans.prepare(&text(1, 5)).expect("a plan"), plans.prepare(&text(2, 6)).expect("a plan"));
    assert!(Arc::ptr_eq(&one.plan, &two.plan));
    assert_ne!(one.params, two.params);
    assert!(Arc::ptr_eq(&one, &plans.prepare(&text(1, 5)).expect("a plan")));
}

#[test]
fn where_on_key_and_window_says_what_to_read() {
    let (plans, calendar) = (plans(), crate::model::window::Calendar::utc());
    let scan = |condition: &str| {
        let prepared = plans.prepare(&format!("select * from gmv_hour where {condition}")).expect(condition);
        // 2026-11-22T10:00:00Z
        let now_us = 1_795_341_600_000_000;
        let context = crate::model::expr::Context { params: &prepared.params, now_us, calendar: &calendar };
        let rest = prepared.plan.filter.len();
        (prepared.plan.bind(&context).expect(condition).scan, rest)
    };
    let keys = |condition: &str| {
        let (scan, rest) = scan(condition);
        (scan.keys.map(|keys| keys.iter().map(ToString::to_string).collect::<Vec<_>>()), rest)
    };
    let some = |keys: &[&str]| Some(keys.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(keys("merchant_id = 42"), (some(&["42"]), 0));
    assert_eq!(keys("(42 = merchant_id) and orders > 1"), (some(&["42"]), 1));
    assert_eq!(keys("merchant_id in (3, -1, 3)"), (some(&["-1", "3"]), 0));
    assert_eq!(keys("merchant_id in (1, 2) and merchant_id in (2, 5) and merchant_id = 1 + 1"), (some(&["2"]), 0));
    assert_eq!(keys("merchant_id = 1 or channel = 'a'").0, None);
    assert_eq!(keys("merchant_id > 1").0, None);
    assert_eq!(keys("not (merchant_id = 1)").0, None);
    let days = |condition: &str| scan(condition).0.days;
    let day = 20_779; // 2026-11-22
    assert_eq!(days("window_start >= '2026-11-22' and window_start < '2026-11-23'"), day..=day);
    assert_eq!(days("window_start between '2026-11-21' and timestamp '2026-11-22'"), day - 1..=day);
    assert_eq!(days("'2026-11-22' < window_start"), day..=i32::MAX);
    assert_eq!(days("window_start >= now() - interval '1 day' and window_start <= now()"), day - 1..=day);
    assert_eq!(days("window_start = date '2026-11-20'"), day - 2..=day - 2);
    assert_eq!(days("window_start >= '2026-11-22' or orders = 1"), i32::MIN..=i32::MAX);
    assert!(scan("window_start > '2026-11-22' and window_start < '2026-11-21'").0.is_empty());
    assert!(scan("merchant_id = 1 and merchant_id = 2").0.is_empty());
    assert!(scan("window_start > null").0.is_empty());
}

#[test]
fn deep_and_long_texts_are_refused_or_planned_and_never_exhaust_the_stack() {
    let plans = Arc::new(plans());
    let long_list = format!("select * from gmv_hour where merchant_id in ({})", vec!["7"; 5_000].join(","));
    let texts = [
        format!("select {} from gmv_hour", vec!["orders"; 900].join(" + ")),
        format!("select * from gmv_hour where {}", vec!["orders = 1"; 400].join(" or ")),
        format!("select * from gmv_hour where {}", vec!["orders = 1"; 400].join(" and ")),
        format!("select {}orders from gmv_hour", "- ".repeat(300)),
        format!("select * from gmv_hour where {} true", "not ".repeat(300)),
        format!("select {}orders{} from gmv_hour", "(".repeat(39), ")".repeat(39)),
        format!("select {}1{} from gmv_hour", "coalesce(".repeat(38), ")".repeat(38)),
        long_list.clone(),
    ];
    for text in texts {
        let plans = plans.clone();
        let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || drop(plans.prepare(&text)));
        run.expect("a thread").join().expect("no panic, no overflow");
    }
    assert!(plans.prepare(&long_list).is_ok());
}
