//! The house: which crate may import which, and that each states its place.

use serde_json::Value;

use super::{Finding, Tree};
use crate::process;

/// Where a crate stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a floor: imports go to lower floors only.
    Floor(u64),
    /// Beside the floors: a tool, imported by tests only.
    Beside,
}

struct Member<'a> {
    name: &'a str,
    /// Manifest path from the root of the repository.
    manifest: String,
    place: Option<Place>,
    dependencies: &'a [Value],
}

/// What cargo knows about the workspace.
pub(super) fn metadata() -> Result<Value, String> {
    let output = process::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .map_err(|e| format!("cannot start cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))
}

/// Every member has a place, the workspace's lints and the name of its folder, and every
/// import between members is allowed.
pub(super) fn check(metadata: &Value, tree: &Tree) -> Vec<Finding> {
    let members = members(metadata);
    let mut findings = Vec::new();
    for member in &members {
        findings.extend(check_manifest(member, tree));
        let Some(place) = member.place else { continue };
        for dependency in member.dependencies {
            let name = dependency["name"].as_str().unwrap_or_default();
            let Some(target) = members.iter().find(|other| other.name == name) else { continue };
            let Some(target_place) = target.place else { continue };
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if let Some(reason) = refusal(place, target_place, for_tests) {
                let what = format!("{} may not depend on {name}: {reason}", member.name);
                findings.push(Finding::in_file(&member.manifest, what));
            }
        }
    }
    findings
}

/// Why a crate at `from` may not import one at `to`; `None` when it may.
fn refusal(from: Place, to: Place, for_tests: bool) -> Option<String> {
    match (from, to) {
        (Place::Floor(_), Place::Beside) if for_tests => None,
        (Place::Floor(_), Place::Beside) => {
            Some("a crate beside the floors is for [dev-dependencies] only".into())
        }
        (Place::Floor(from), Place::Floor(to)) if to >= from => {
            Some(format!("imports go down, and floor {to} is not below floor {from}"))
        }
        (Place::Floor(_), Place::Floor(_)) | (Place::Beside, _) => None,
    }
}

fn members(metadata: &Value) -> Vec<Member<'_>> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let packages = metadata["packages"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    packages.iter().map(|package| Member::of(package, root)).collect()
}

impl<'a> Member<'a> {
    fn of(package: &'a Value, root: &str) -> Self {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest).trim_start_matches('/');
        let house = &package["metadata"]["house"];
        let place = match (house["floor"].as_u64(), house["beside"].as_bool()) {
            (Some(floor), None) => Some(Place::Floor(floor)),
            (None, Some(true)) => Some(Place::Beside),
            _ => None,
        };
        Self {
            name: package["name"].as_str().unwrap_or_default(),
            manifest: manifest.to_owned(),
            place,
            dependencies: package["dependencies"].as_array().map_or(&[], Vec::as_slice),
        }
    }
}

fn check_manifest(member: &Member<'_>, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |what: String| findings.push(Finding::in_file(&member.manifest, what));
    if member.place.is_none() {
        refuse("[package.metadata.house] must say `floor = N` or `beside = true`".into());
    }
    let text = tree.file(&member.manifest).map(super::tree::File::text).unwrap_or_default();
    if !inherits_lints(text) {
        refuse("`[lints] workspace = true` is missing".into());
    }
    let folder = member.manifest.trim_end_matches("/Cargo.toml");
    let folder = folder.rsplit('/').next().unwrap_or_default();
    if member.name != format!("aiv-{folder}") {
        refuse(format!("package {} must be named aiv-{folder}, after its folder", member.name));
    }
    findings
}

/// Whether a manifest says `workspace = true` in its `[lints]` table.
fn inherits_lints(manifest: &str) -> bool {
    let mut in_lints = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_lints = line == "[lints]";
        } else if in_lints && line.replace(' ', "") == "workspace=true" {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One crate of a workspace in a test.
    fn package(name: &str, house: &Value, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependency = |&(name, kind): &(&str, Option<&str>)| json!({"name": name, "kind": kind});
        json!({
            "name": format!("aiv-{name}"),
            "manifest_path": format!("/house/crates/{name}/Cargo.toml"),
            "metadata": { "house": house },
            "dependencies": dependencies.iter().map(dependency).collect::<Vec<_>>(),
        })
    }

    fn check_packages(packages: &[Value], lints: &str) -> Vec<String> {
        let metadata = json!({"workspace_root": "/house", "packages": packages});
        let manifests: Vec<String> = packages
            .iter()
            .map(|p| p["manifest_path"].as_str().unwrap().replace("/house/", ""))
            .collect();
        let files: Vec<_> = manifests.iter().map(|path| (path.as_str(), lints)).collect();
        check(&metadata, &Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    const LINTS: &str = "[lints]\nworkspace = true\n";

    #[test]
    fn imports_that_go_down_are_allowed_and_tests_may_use_what_stands_beside() {
        let found = check_packages(
            &[
                package("low", &json!({"floor": 0}), &[("aiv-tools", Some("dev"))]),
                package("high", &json!({"floor": 2}), &[("aiv-low", None), ("serde", None)]),
                package("tools", &json!({"beside": true}), &[("aiv-high", None)]),
            ],
            LINTS,
        );
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_level_import_is_refused_even_for_tests() {
        let found = check_packages(
            &[
                package("one", &json!({"floor": 1}), &[("aiv-other", Some("dev"))]),
                package("other", &json!({"floor": 1}), &[]),
            ],
            LINTS,
        );
        assert_eq!(
            found,
            ["crates/one/Cargo.toml: aiv-one may not depend on aiv-other: \
              imports go down, and floor 1 is not below floor 1"]
        );
    }

    #[test]
    fn an_upward_import_is_refused() {
        let found = check_packages(
            &[
                package("low", &json!({"floor": 0}), &[("aiv-high", Some("build"))]),
                package("high", &json!({"floor": 3}), &[]),
            ],
            LINTS,
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("floor 3 is not below floor 0"), "{found:?}");
    }

    #[test]
    fn a_library_may_not_import_what_stands_beside() {
        let found = check_packages(
            &[
                package("low", &json!({"floor": 0}), &[("aiv-tools", None)]),
                package("tools", &json!({"beside": true}), &[]),
            ],
            LINTS,
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("[dev-dependencies] only"), "{found:?}");
    }

    #[test]
    fn a_member_without_a_place_or_with_two_is_refused() {
        for house in [json!(null), json!({"floor": 1, "beside": true}), json!({"floor": "1"})] {
            let found = check_packages(&[package("lost", &house, &[])], LINTS);
            assert_eq!(found.len(), 1, "{house}");
            assert!(found[0].contains("[package.metadata.house]"), "{found:?}");
        }
    }

    #[test]
    fn a_member_with_lints_of_its_own_is_refused() {
        let manifest = "[lints.rust]\nunsafe_code = \"allow\"\n[package]\nworkspace = true\n";
        let found = check_packages(&[package("low", &json!({"floor": 0}), &[])], manifest);
        assert_eq!(found, ["crates/low/Cargo.toml: `[lints] workspace = true` is missing"]);
    }

    #[test]
    fn a_package_is_named_after_its_folder() {
        let mut odd = package("low", &json!({"floor": 0}), &[]);
        odd["name"] = json!("aiv-deep");
        let found = check_packages(&[odd], LINTS);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("must be named aiv-low"), "{found:?}");
    }
}
