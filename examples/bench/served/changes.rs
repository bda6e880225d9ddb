//! From an object written by the API to the address that the outside sees.

use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::testbed::Trouble;
use serde_json::{Value, json};

use super::ground::{Ground, trouble};
use super::objects::{POLICY, pod, pod_path, policy, running};
use crate::agent::PATIENCE;
use crate::paths::selects;
use crate::rows::{Rows, Target};
use crate::watching::{By, Kind, Watching};
use crate::world::LEASES;

const POLICIES: &str = "/apis/egret.dev/v1alpha1/egressgatewaypolicies";
const ENDPOINTS: &str = "/apis/egret.dev/v1alpha1/egressendpoints?";

/// Two gateways that are ready, near and far, and a pod on node 1, with agents on both nodes.
pub(super) fn gateways(ground: &Ground) -> Result<Watching, Trouble> {
    ground.client.create(POLICIES, &policy("way", &rules("near"))).map_err(trouble)?;
    let mut pods = Vec::new();
    for (node, namespace, name) in [(1, "gate", "near"), (2, "gate", "far"), (1, "shop", "watched")] {
        let mut object = pod(namespace, name, &format!("node{node}"), &[("place", name)]);
        if namespace == "gate" {
            object["metadata"]["annotations"] = json!({LEASES[0].0: LEASES[0].1});
        }
        let path = pod_path(namespace, name);
        let made =
            ground.client.create(path.rsplit_once('/').unwrap_or_default().0, &object).map_err(trouble)?;
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
        let pod = ground.pod(node, &format!("{namespace}/{name}"), uid)?;
        let ip = pod.address(Family::V4).map(|ip| ip.to_string()).unwrap_or_default();
        ground.client.merge(&format!("{path}/status"), &running(&ip)).map_err(trouble)?;
        pods.push(pod);
    }
    let lease = |gateway: &str| -> Result<_, Trouble> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (all, _) = ground.client.list(ENDPOINTS).map_err(trouble)?;
            let own = all.iter().map(|object| &object["spec"]).find(|spec| spec["pod"] == gateway);
            if let Some(spec) = own.filter(|spec| spec["state"] == "ready") {
                return serde_json::from_value(spec["addresses"][0]["ip"].clone()).map_err(trouble);
            }
            if Instant::now() > end {
                return Err(Trouble::new(format!("{gateway} is not ready: {own:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let (near, far) = (lease("gate/near")?, lease("gate/far")?);
    let pod = pods.pop().ok_or_else(|| trouble("no pod"))?;
    Ok(Watching { pod, near, far })
}

fn rules(place: &str) -> Value {
    json!([{"gateway": {"selector": format!("place == '{place}'"), "namespaceSelector": "projectcalico.org/name == 'gate'"}}])
}

pub(super) fn measure(
    ground: &Ground,
    watching: &Watching,
    rounds: usize,
    rows: &mut Rows,
) -> Result<(), Trouble> {
    let merge = |path: &str, fields: &Value| ground.client.merge(path, fields).map(drop).map_err(trouble);
    let (watched, way) = (pod_path("shop", "watched"), format!("{POLICIES}/way"));
    let write = |words: &[(&str, &str)]| {
        let mut all = json!({POLICY: null});
        for (key, _) in selects("") {
            all[key] = Value::Null;
        }
        for (key, value) in words {
            all[*key] = json!(value);
        }
        merge(&watched, &json!({"metadata": {"annotations": all}}))
    };
    let rule = |place: &str| merge(&way, &json!({"spec": {"rules": rules(place)}}));
    watching.until(By::Nobody)?;
    let writes: [Kind<'_>; 5] = [
        ("a pod is annotated", By::Near, &|| write(&selects("place == 'near'"))),
        ("its annotation names another gateway", By::Far, &|| write(&selects("place == 'far'"))),
        ("its annotation names a policy", By::Near, &|| write(&[(POLICY, "way")])),
        ("the policy's rule changes", By::Far, &|| rule("far")),
        ("the annotation is taken off", By::Nobody, &|| write(&[])),
    ];
    let changes = watching.changes(&writes, &|| rule("near"), rounds)?;
    for (what, series) in &changes.kinds {
        rows.figure(&format!("cluster: object written → seen outside, {what}"), series, "ms", Target::None);
    }
    rows.figure("cluster: … of which the API server's own answer", &changes.writing, "ms", Target::None);
    let all = changes.all();
    rows.figure("cluster: object written → seen outside, all of these", &all, "ms", Target::AtMost(50.0));
    rows.share("cluster: … 99 of 100 within", &all, 0.99, "ms", Target::AtMost(250.0));
    Ok(())
}
