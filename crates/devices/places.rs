//! Where libraries may lie: folders that the user names, the usual ones, and those of Python's packages.

use std::collections::HashMap;
use std::env::{self, consts::ARCH};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables that name folders.
const VARIABLES: [&str; 9] = [
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PATH",
    "HOME",
    "PYTHONUSERBASE",
    "CUDA_VISIBLE_DEVICES",
];

/// What the search depends on: the environment, and the root of the file system.
#[derive(Clone, Debug)]
pub struct Surroundings {
    variables: HashMap<&'static str, OsString>,
    root: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let set = |name| Some((name, env::var_os(name)?));
        Self { variables: VARIABLES.into_iter().filter_map(set).collect(), root: PathBuf::from("/") }
    }

    /// Others, for tests.
    #[cfg(test)]
    pub(crate) fn new(root: &Path, variables: &[(&'static str, String)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (*name, value.into())).collect();
        Self { variables, root: root.to_owned() }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// A folder that a variable names.
    fn named(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from)
    }

    /// A list of folders.
    fn list(&self, name: &str) -> Vec<PathBuf> {
        let folders = self.variable(name).map(|value| env::split_paths(value).collect()).unwrap_or_default();
        Vec::into_iter(folders).filter(|folder: &PathBuf| !folder.as_os_str().is_empty()).collect()
    }

    /// An absolute path, below the root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Folders of the driver's library, in the order in which they are tried. A toolkit has none of its own: what lies in its
    /// `stubs` is for linking.
    pub fn driver_folders(&self) -> Vec<PathBuf> {
        let triple = format!("/usr/lib/{ARCH}-linux-gnu");
        let debian = format!("{triple}/nvidia/current");
        // Windows' Linux, containers (Google's), Debian, NixOS.
        let usual =
            ["/usr/lib/wsl/lib", "/usr/local/nvidia/lib64", &triple, "/usr/lib64", &debian, "/run/opengl-driver/lib"];
        let mut folders = self.list("LD_LIBRARY_PATH");
        folders.extend(usual.map(|path| self.at(path)));
        once(folders)
    }

    /// Folders of the toolkit's libraries, in the order in which they are tried.
    pub fn library_folders(&self) -> Vec<PathBuf> {
        let mut folders = self.list("LD_LIBRARY_PATH");
        let homes = [self.named("CUDA_HOME"), self.named("CUDA_PATH")].into_iter().flatten();
        folders.extend(homes.flat_map(|home| of_toolkit(&home)));
        let usual = self.at("/usr/local/cuda");
        let installed = [self.at("/usr/local"), self.at("/opt")];
        let versions = installed.iter().flat_map(|parent| newest_first(parent, "cuda-"));
        folders.extend([usual, self.at("/opt/cuda")].into_iter().chain(versions).flat_map(|home| of_toolkit(&home)));
        let triple = format!("/usr/lib/{ARCH}-linux-gnu");
        folders.extend([&triple, "/usr/lib64", "/usr/lib/wsl/lib"].map(|path| self.at(path)));
        folders.extend(self.python_folders());
        once(folders)
    }

    /// `nvidia/*/lib` in Python's folders of packages, as NVIDIA's wheels lay them, found without starting a Python: those of
    /// the active environment, of the `python3` on the path, of the user, of the system.
    fn python_folders(&self) -> Vec<PathBuf> {
        let mut prefixes: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| self.named(name)).collect();
        let program = self.list("PATH").into_iter().map(|folder| folder.join("python3")).find(|path| path.is_file());
        if let Some(program) = program {
            prefixes.extend(hops(program).iter().filter_map(|path| prefix_of(path)));
        }
        prefixes.extend(self.named("PYTHONUSERBASE"));
        prefixes.extend(self.named("HOME").map(|home| home.join(".local")));
        prefixes.extend(["/usr/local", "/usr"].map(|path| self.at(path)));
        let conda = self.named("CONDA_PREFIX").map(|prefix| prefix.join("lib"));
        let sites = prefixes.iter().flat_map(|prefix| sites_of(prefix));
        conda.into_iter().chain(sites.flat_map(|site| wheels_of(&site))).collect()
    }
}

/// Folders of libraries in a toolkit.
fn of_toolkit(home: &Path) -> [PathBuf; 3] {
    [home.join("lib64"), home.join("lib"), home.join(format!("targets/{ARCH}-linux/lib"))]
}

/// `bin/python3` → what is above `bin`.
fn prefix_of(program: &Path) -> Option<PathBuf> {
    program.parent()?.parent().map(Path::to_owned)
}

/// A program and what its links lead to, one after the other: a `python3` for all may be a link to that of an environment, which
/// is a link to that of the system, and each of them has packages.
fn hops(program: PathBuf) -> Vec<PathBuf> {
    let next = |link: &Path| {
        let target = link.parent()?.join(std::fs::read_link(link).ok()?);
        Some(target.parent()?.canonicalize().ok()?.join(target.file_name()?))
    };
    let mut hops = vec![program];
    while let Some(target) = hops.last().and_then(|link| next(link)) {
        // A link may lead back.
        if hops.contains(&target) {
            break;
        }
        hops.push(target);
    }
    hops
}

/// Folders of packages below a prefix.
fn sites_of(prefix: &Path) -> Vec<PathBuf> {
    let versions = ["lib", "lib64"].iter().flat_map(|name| newest_first(&prefix.join(name), "python3"));
    versions.flat_map(|python| [python.join("site-packages"), python.join("dist-packages")]).collect()
}

/// `nvidia/cu13/lib` (CUDA 13), `nvidia/cublas/lib` (CUDA 12).
fn wheels_of(site: &Path) -> Vec<PathBuf> {
    let parts = newest_first(&site.join("nvidia"), "");
    parts.into_iter().map(|part| part.join("lib")).filter(|folder| folder.is_dir()).collect()
}

/// Folders in `parent` whose names begin so, the highest version first: 13.0 before 12.9, 3.13 before 3.9.
fn newest_first(parent: &Path, start: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter_map(|path| {
            let rest = path.file_name()?.to_str()?.strip_prefix(start)?;
            let version = rest.split('.').map(|part| part.parse().unwrap_or(0)).collect();
            path.is_dir().then_some((version, path.clone()))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Without repetitions, in the same order.
fn once(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if !kept.contains(&folder) {
            kept.push(folder);
        }
    }
    kept
}

#[cfg(test)]
mod test {
    use super::Surroundings;
    use std::fs;
    use std::path::Path;

    fn below<'a>(root: &Path, folders: &'a [std::path::PathBuf]) -> Vec<&'a str> {
        let name = |path: &'a std::path::PathBuf| path.strip_prefix(root).ok()?.to_str();
        folders.iter().filter_map(name).collect()
    }

    #[test]
    fn what_the_user_names_comes_first_and_the_newest_before_the_older() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |path: &str| root.path().join(path);
        for path in ["usr/local/cuda-12.9", "usr/local/cuda-13.0", "usr/local/cuda-13.10", "usr/local/cudnn"] {
            fs::create_dir_all(at(path)).expect("a folder");
        }
        let variables = [
            ("LD_LIBRARY_PATH", format!("{}::{}", at("mine").display(), at("mine").display())),
            ("CUDA_HOME", at("toolkit").display().to_string()),
            ("CUDA_PATH", String::new()),
        ];
        let folders = Surroundings::new(root.path(), &variables).library_folders();
        let found = below(root.path(), &folders);
        assert_eq!(found[..2], ["mine", "toolkit/lib64"]);
        let place =
            |name: &str| found.iter().position(|path| *path == name).unwrap_or_else(|| panic!("{name}: {found:?}"));
        assert!(place("usr/local/cuda/lib64") < place("usr/local/cuda-13.10/lib64"));
        assert!(place("usr/local/cuda-13.10/lib64") < place("usr/local/cuda-13.0/lib64"));
        assert!(place("usr/local/cuda-13.0/lib64") < place("usr/local/cuda-12.9/lib64"));
        assert!(!found.iter().any(|path| path.contains("cudnn") || path.contains("stubs")));
        assert_eq!(found.iter().filter(|path| **path == "mine").count(), 1);
    }

    #[test]
    fn wheels_are_found_without_starting_a_python() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |path: &str| root.path().join(path);
        let sites = [
            "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            "real/lib/python3.9/site-packages/nvidia/cublas/lib",
            "real/lib/python3.13/dist-packages/nvidia/cublas/lib",
            "home/.local/lib/python3.13/site-packages/nvidia/cublas/lib",
            "conda/lib/python3.11/site-packages",
            "environment/lib/python3.13/site-packages/nvidia/cu13/lib",
            "environment/bin",
            "other/bin",
            "real/bin",
        ];
        for path in sites {
            fs::create_dir_all(at(path)).expect("a folder");
        }
        fs::write(at("real/bin/python3.13"), "").expect("a file");
        let link = |from: &str, to: &str| std::os::unix::fs::symlink(from, at(to)).expect("a link");
        link("../../environment/bin/python3", "other/bin/python3");
        link("python", "environment/bin/python3");
        link(&at("real/bin/python3.13").display().to_string(), "environment/bin/python");
        let text = |path: &str| at(path).display().to_string();
        let variables = [
            ("VIRTUAL_ENV", text("venv")),
            ("CONDA_PREFIX", text("conda")),
            ("HOME", text("home")),
            ("PATH", format!("{}:{}", text("nowhere"), text("other/bin"))),
        ];
        let folders = Surroundings::new(root.path(), &variables).library_folders();
        let found = below(root.path(), &folders);
        let python: Vec<&&str> =
            found.iter().filter(|path| path.contains("nvidia/") && path.ends_with("lib")).collect();
        assert_eq!(
            python,
            [
                &"venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                &"environment/lib/python3.13/site-packages/nvidia/cu13/lib",
                &"real/lib/python3.13/dist-packages/nvidia/cublas/lib",
                &"real/lib/python3.9/site-packages/nvidia/cublas/lib",
                &"home/.local/lib/python3.13/site-packages/nvidia/cublas/lib",
            ]
        );
        assert!(found.contains(&"conda/lib"));
    }
}
