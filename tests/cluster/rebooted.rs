//! The agent of a machine that was started anew: what lies on its disk of gateways is of the life before.

use std::time::Duration;

use egret::egress::model::{Endpoint, EndpointState};
use egret::store::{Dir, endpoints};
use serde_json::Value;

use crate::follower::{Follower, follow, follow_after};
use crate::leases::{claim, ground, pod, publish, wait};
use crate::proxy::{Fate, Proxy, refusal};
use crate::world::*;

const ENDPOINTS: &str = "/apis/egret.dev/v1alpha1/egressendpoints";
const RECORDS: &str = "/apis/egret.dev/v1alpha1/egressnodes";

/// Its endpoint is not in the cluster any more, as after the controller has given a dead node's things back.
#[test]
fn a_gateway_of_the_life_before_is_never_said_to_be_ready() {
    let _alone = alone();
    let client = ground(&["boot-one"]);
    let first = Proxy::start();
    let agent = follow(&first, "boot-one");
    agent.synced();
    let uid = pod(&client, "before", "boot-one");
    let claimed = claim(&agent, "before", &uid).unwrap();
    publish(&agent, &claimed);
    let said = || client.get(ENDPOINTS).unwrap()["items"].as_array().cloned().unwrap_or_default();
    wait("the endpoint is not said", || (said().len() == 1).then_some(()));

    first.judge(|_| refusal(503, "ServiceUnavailable", "its power is gone"));
    for objects in [ENDPOINTS, RECORDS] {
        client.delete(objects).unwrap();
    }
    let second = Proxy::start();
    second.judge(|line| if line.contains("/pods?") { Fate::Silence } else { Fate::Pass });
    let next = follow_after(&second, agent, |state| {
        let dir = Dir::open(state).unwrap();
        let (known, _) = endpoints::list(&dir).unwrap();
        let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
        let ready = Endpoint { state: EndpointState::Ready, ..known[0].clone() };
        endpoints::put(&dir, &guard, &ready).unwrap();
    });
    // What it says of itself it says in the same breath, and of its pods it has heard nothing yet.
    let records = || client.get(RECORDS).unwrap()["items"].as_array().map(Vec::len);
    wait("it says nothing", || (records() == Some(1)).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(said(), Vec::<Value>::new());
    second.judge(|_| Fate::Pass);
    let state = wait("it is not said any more", || said().first().map(|said| said["spec"]["state"].clone()));
    assert_eq!(state, "draining", "no plan of this life has it");
    let _: Follower = next;
}
