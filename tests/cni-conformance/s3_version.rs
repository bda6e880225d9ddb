//! Section 3: VERSION.

use serde_json::json;

use crate::world::for_an_unselected_pod;

#[test]
fn row_3_1_every_version_is_listed_literally() {
    for_an_unselected_pod(|world| {
        assert_eq!(
            world.call("VERSION").bytes(r#"{"cniVersion":"1.1.0"}"#).run().succeeds(),
            json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
        );
    });
}

#[test]
fn row_3_2_standard_input_changes_nothing() {
    for_an_unselected_pod(|world| {
        let full = world.call("VERSION").run().succeeds();
        for bytes in ["", "{", r#"{"cniVersion":"9.9.9"}"#] {
            assert_eq!(world.call("VERSION").bytes(bytes).run().succeeds(), full);
        }
    });
}
