//! What is in contrib/monitoring works with what the daemon shows: names, alerts, dashboard, and the copy for the node
//! exporter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::bed::proc::{self, Output};
use crate::{SOON, bed};

crate::tests![
    monitoring_names_exist,
    monitoring_alerts,
    monitoring_dashboard,
    monitoring_textfile,
    monitoring_units,
];

/// Every line that a mount may have.
const PAGE: &str = include_str!("../../src/fs/metrics/page.txt");
const RULES: &str = include_str!("../../contrib/monitoring/aoefs.rules.yml");
const RULES_TEST: &str = include_str!("../../contrib/monitoring/aoefs.rules.test.yml");
const DASHBOARD: &str = include_str!("../../contrib/monitoring/grafana-dashboard.json");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contrib() -> PathBuf {
    repository().join("contrib/monitoring")
}

/// promtool, also from where the test command puts it. Skips the test where there is none.
fn promtool_path() -> String {
    let unpacked = repository().join("target/tools/usr/bin/promtool");
    match unpacked.is_file() {
        true => unpacked.to_str().unwrap().to_owned(),
        false if proc::have("promtool") => "promtool".to_owned(),
        false => bed::skip("the program promtool is not installed (Debian: prometheus)"),
    }
}

fn promtool(args: &[&str]) -> Output {
    proc::run(SOON, &[&[promtool_path().as_str()], args].concat())
}

/// Words that look like names of metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("aoefs_") || word.starts_with("process_")).collect()
}

/// The expressions of the dashboard, with Grafana's variables filled in as it does.
fn expressions() -> Vec<String> {
    let board: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let filled = |text: &str| {
        let text = text.replace("$__rate_interval", "5m");
        text.replace("$instance", ".*").replace("$target", "1.0|2.0")
    };
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

fn monitoring_names_exist() {
    let known = names(PAGE);
    let named: BTreeSet<String> =
        expressions().iter().flat_map(|text| names(text)).map(str::to_owned).collect();
    assert!(named.len() > 15, "{named:?}");
    let rules: BTreeSet<&str> = RULES
        .lines()
        .filter(|line| !line.contains("summary") && !line.contains('#'))
        .flat_map(names)
        .collect();
    assert!(rules.len() > 6, "{rules:?}");
    for name in named.iter().map(String::as_str).chain(rules) {
        assert!(known.contains(name), "no mount has a metric {name}");
    }
    // Each alert is shown to come and to go.
    for alert in RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let silent =
            RULES_TEST.matches(&format!("alertname: {alert}, eval_time: 45m, exp_alerts: []")).count();
        let loud = RULES_TEST.matches(&format!("alertname: {alert}\n")).count();
        assert_eq!((silent, loud), (1, 1), "{alert} is not tested");
    }
}

fn monitoring_alerts() {
    let dir = contrib();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for args in [
        ["check", "rules", &file("aoefs.rules.yml")],
        ["test", "rules", &file("aoefs.rules.test.yml")],
        ["check", "config", &file("prometheus.yml")],
    ] {
        let output = promtool(&args);
        assert!(
            output.ok() && output.stdout.contains("SUCCESS"),
            "{args:?}: {}{}",
            output.stdout,
            output.stderr
        );
    }
}

fn monitoring_dashboard() {
    let board: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    // No panel lies on another one.
    let mut cells = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_i64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
    // As rules, which is how promtool reads an expression.
    let rules: Vec<String> = expressions()
        .iter()
        .enumerate()
        .map(|(n, expr)| format!("  - {{record: 'panel:{n}', expr: {}}}\n", serde_json::json!(expr)))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("panels.yml");
    std::fs::write(&file, format!("groups:\n- name: panels\n  rules:\n{}", rules.concat())).unwrap();
    let output = promtool(&["check", "rules", file.to_str().unwrap()]);
    let found = format!("{} rules found", rules.len());
    assert!(output.ok() && output.stdout.contains(&found), "{}{}", output.stdout, output.stderr);
}

fn monitoring_textfile() {
    let (mount, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (metrics, to) = (mount.path().join("metrics"), to.path().join("node exporter"));
    let script = contrib().join("aoefs-textfile");
    let copy =
        || proc::run(SOON, &[script.to_str().unwrap(), mount.path().to_str().unwrap(), to.to_str().unwrap()]);
    std::fs::write(&metrics, PAGE).unwrap();
    let output = copy();
    assert!(output.ok(), "{}{}", output.stdout, output.stderr);
    let written = || {
        let entries = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> = entries.collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let name = files[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("aoefs-") && name.ends_with(".prom"), "{name}");
        std::fs::read_to_string(&files[0]).unwrap()
    };
    let copied = written();
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let own = PAGE.lines().filter(|line| line.starts_with("process_")).count();
    assert!(own > 3 && samples(&copied) == samples(PAGE) - own, "{copied}");
    assert!(!copied.contains("process_") && !copied.contains("# EOF"), "{copied}");
    let label = format!("{{mountpoint=\"{}\"", mount.path().display());
    let labelled = copied.lines().filter(|line| line.contains(&label)).count();
    assert_eq!(labelled, samples(&copied), "{copied}");
    // A page that was cut, and none at all: the last whole one stays, and the script says what is wrong.
    std::fs::write(&metrics, &PAGE[..PAGE.len() - 20]).unwrap();
    let output = copy();
    assert!(!output.ok() && output.stderr.contains("ended in the middle"), "{}", output.stderr);
    std::fs::remove_file(&metrics).unwrap();
    assert!(!copy().ok());
    assert_eq!(written(), copied);
    let name = |path: &Path| path.to_str().unwrap().replace('\'', "'\\''");
    let check = format!("cat '{}'/*.prom | '{}' check metrics 2>&1", name(&to), promtool_path());
    assert_eq!(proc::sh(SOON, &check), "");
    // Another mount has another file.
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("a/b")).unwrap();
    std::fs::create_dir(base.path().join("a-b")).unwrap();
    for other in ["a/b", "a-b"] {
        let other = base.path().join(other);
        std::fs::write(other.join("metrics"), PAGE).unwrap();
        proc::ok(SOON, &[script.to_str().unwrap(), other.to_str().unwrap(), to.to_str().unwrap()]);
    }
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 3);
}

/// The units, with the programs where this repository has them.
fn monitoring_units() {
    if !proc::have("systemd-analyze") {
        bed::skip("the program systemd-analyze is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for name in ["aoefs-metrics.service", "aoefs-metrics.timer"] {
        let text = std::fs::read_to_string(contrib().join(name)).unwrap();
        let text = text.replace("/usr/libexec/aoefs", contrib().to_str().unwrap());
        let unit = dir.path().join(name);
        std::fs::write(&unit, text).unwrap();
        units.push(unit.to_str().unwrap().to_owned());
    }
    let words = ["systemd-analyze", "verify", "--man=no"].map(str::to_owned);
    let output = proc::run(SOON, &[&words[..], &units[..]].concat());
    assert!(output.ok() && output.stderr.is_empty(), "{}{}", output.stdout, output.stderr);
}
