//! The Kubernetes manifests: numbers, names and ports that other files repeat, and what keeps a
//! majority alive.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::files::{documents, list, path, string, text, yaml};
use crate::node_configs::{KUBERNETES, NodeConfig, shutdown_seconds};

const FOLDER: &str = "deploy/kubernetes";

fn stateful_set() -> Value {
    yaml(&format!("{FOLDER}/statefulset.yaml"))
}

fn container() -> Value {
    let set = stateful_set();
    let [container] = list(&set["spec"]["template"]["spec"]["containers"]) else { panic!("{set}") };
    container.clone()
}

#[test]
fn pods_are_the_nodes_of_their_configuration() {
    let set = stateful_set();
    let config = NodeConfig::read(KUBERNETES);
    let kustomization = yaml(&format!("{FOLDER}/kustomization.yaml"));
    let name = string(&set["metadata"]["name"]);
    let service = string(&set["spec"]["serviceName"]);
    let namespace = string(&kustomization["namespace"]);
    let first = set["spec"]["ordinals"]["start"].as_i64().expect("a number");
    let count = set["spec"]["replicas"].as_i64().expect("a number");
    let port = config.peer_port();
    let pods: Vec<_> = (first..first + count)
        .map(|id| (id, format!("{name}-{id}.{service}.{namespace}.svc:{port}")))
        .collect();
    let nodes: Vec<_> = config.nodes().into_iter().map(|(id, a)| (id, a.to_owned())).collect();
    assert_eq!(pods, nodes);
    let container = container();
    let [number] = list(&container["env"]) else { panic!("{container}") };
    let field = string(&number["valueFrom"]["fieldRef"]["fieldPath"]);
    assert_eq!(field, "metadata.labels['apps.kubernetes.io/pod-index']");
    let arguments: Vec<_> = list(&container["args"]).iter().map(string).collect();
    let own = format!("$({})", string(&number["name"]));
    assert_eq!(arguments, ["serve", "--config", "/etc/flintmq/node.toml", "--node-id", &own]);
}

#[test]
fn ports_are_those_of_the_configuration() {
    let config = NodeConfig::read(KUBERNETES);
    let container = container();
    let ports: BTreeSet<_> = list(&container["ports"])
        .iter()
        .map(|port| {
            let number = port["containerPort"].as_u64().expect("a port");
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            (string(&port["name"]).to_owned(), number, protocol.to_owned())
        })
        .collect();
    let [clients] = config.client_ports()[..] else { panic!("{config:?}") };
    let expected = [
        ("clients", clients, "TCP"),
        ("admin", config.admin_port(), "TCP"),
        ("nodes", config.peer_port(), "UDP"),
    ];
    let expected = expected
        .map(|(name, port, protocol)| (name.to_owned(), u64::from(port), protocol.to_owned()));
    assert_eq!(ports, expected.into());
    for service in documents(&format!("{FOLDER}/services.yaml")) {
        for port in list(&service["spec"]["ports"]) {
            let target = string(&port["targetPort"]).to_owned();
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let number = port["port"].as_u64().expect("a port");
            assert!(ports.contains(&(target, number, protocol)), "{port}");
        }
    }
    let scraped = &stateful_set()["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(scraped["prometheus.io/port"], config.admin_port().to_string());
}

#[test]
fn a_majority_stays_while_machines_are_drained_and_pods_are_replaced() {
    let set = stateful_set();
    let spec = &set["spec"];
    let budget = yaml(&format!("{FOLDER}/disruption-budget.yaml"));
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    // The first pod is not ready before the second one runs.
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(spec["updateStrategy"]["type"], "RollingUpdate");
    assert!(spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"].is_null());
    assert!(spec["minReadySeconds"].as_u64() >= Some(10));
    let affinity = &spec["template"]["spec"]["affinity"]["podAntiAffinity"];
    let apart = &affinity["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(&apart["labelSelector"]["matchLabels"], labels);
    let grace = spec["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    assert!(grace > Some(2 * shutdown_seconds()), "{grace:?}");
}

#[test]
fn only_readiness_depends_on_other_nodes() {
    let container = container();
    let asks = |probe: &str| string(&container[probe]["httpGet"]["path"]).to_owned();
    assert_eq!(asks("readinessProbe"), "/readyz");
    assert_eq!(
        (asks("livenessProbe"), asks("startupProbe")),
        ("/healthz".into(), "/healthz".into())
    );
    let services = documents(&format!("{FOLDER}/services.yaml"));
    let name = stateful_set()["spec"]["serviceName"].clone();
    let nodes = services.iter().find(|service| service["metadata"]["name"] == name);
    let nodes = nodes.expect("the service of the nodes");
    assert_eq!(nodes["spec"]["clusterIP"], "None");
    assert_eq!(nodes["spec"]["publishNotReadyAddresses"], true);
}

#[test]
fn a_pod_finds_its_files_and_no_other_pods_key() {
    let config = NodeConfig::read(KUBERNETES);
    let set = stateful_set();
    let container = container();
    let mount = |volume: &str| {
        let mut mounts = list(&container["volumeMounts"]).iter();
        mounts.find(|mount| mount["name"] == volume).unwrap_or_else(|| panic!("{volume}")).clone()
    };
    let identity = mount("identities");
    assert_eq!(identity["subPathExpr"], "node-$(NODE_ID)");
    let folder = string(&identity["mountPath"]).to_owned();
    let volumes = list(&set["spec"]["template"]["spec"]["volumes"]);
    let volume = |name: &str| volumes.iter().find(|volume| volume["name"] == name).expect("there");
    let items: BTreeSet<_> = list(&volume("identities")["secret"]["items"])
        .iter()
        .map(|item| (string(&item["key"]).to_owned(), string(&item["path"]).to_owned()))
        .collect();
    let page = text("docs/operating/clusters.md");
    let mut expected = BTreeSet::new();
    for (id, _) in config.nodes() {
        for (source, key) in [
            ("ca.pem".to_owned(), "peers.ca"),
            ("admin.token".to_owned(), "admin.token_file"),
            (format!("node-{id}.pem"), "peers.certificate"),
            (format!("node-{id}.key"), "peers.key"),
        ] {
            let file = config.string(key).strip_prefix(&format!("{folder}/"));
            let file = file.unwrap_or_else(|| panic!("{key} is not in {folder}"));
            assert!(page.contains(&format!("--from-file=certs/{source}")), "{source}");
            expected.insert((source, format!("node-{id}/{file}")));
        }
    }
    assert_eq!(items, expected);
    assert!(!page.contains("--from-file=certs/ca.key") && !page.contains("--from-file=certs "));
    assert_eq!(mount("data")["mountPath"], config.string("node.data_dir"));
    assert_eq!(mount("witness")["mountPath"], "/dev/shm");
    assert_eq!(volume("witness")["emptyDir"]["medium"], "Memory");
}

#[test]
fn every_manifest_is_applied() {
    let kustomization = yaml(&format!("{FOLDER}/kustomization.yaml"));
    let mut listed: BTreeSet<_> =
        list(&kustomization["resources"]).iter().map(|name| string(name).to_owned()).collect();
    listed.insert("kustomization.yaml".to_owned());
    listed.extend(
        list(&kustomization["configMapGenerator"][0]["files"]).iter().map(|f| string(f).to_owned()),
    );
    let files: BTreeSet<_> = fs::read_dir(path(FOLDER))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, listed);
}
