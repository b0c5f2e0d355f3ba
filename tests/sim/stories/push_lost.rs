//! No push reaches an owner: it reads kv (I8: the fallback is an everyday path).

use super::*;

#[test]
fn i4_an_owner_that_gets_no_push_reads_kv() {
    tell(|world| world.pass(5_000), |plan| plan.pushes_lost = true);
}
