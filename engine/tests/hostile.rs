//! Whatever happens, in whatever order: no panic, and every bound holds.

#![allow(unreachable_pub, reason = "the module is shared with the fuzz target")]

mod event_list;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_event_list_keeps_the_promises(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin of the virtual clock")]
        let origin = std::time::Instant::now();
        event_list::run(origin, &bytes, |_| {});
    }
}
