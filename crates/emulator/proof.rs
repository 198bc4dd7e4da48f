//! How an op's proof is run: under two schedules, and on sources with mistakes.

use std::sync::Arc;

use crate::compiler::Library;
use crate::machine::Device;

/// What is to be shown of the kernels of a library, on a device with whatever schedule.
pub type Proof<'a> = &'a dyn Fn(&Device) -> Result<(), String>;

fn under_two_schedules(library: &Arc<Library>, proof: Proof) -> Result<(), String> {
    let mut digests = Vec::new();
    for schedule in [0, 1] {
        let device = Device::new(library, schedule);
        proof(&device)?;
        digests.push(device.digest());
    }
    if digests[0] == digests[1] { Ok(()) } else { Err("another order of threads and blocks gives other bits".into()) }
}

/// `proof` holds for the kernels of `source`, with the same bits under two schedules.
pub fn prove(source: &str, proof: Proof) {
    let Some(library) = Library::of(source) else { return };
    if let Err(fault) = under_two_schedules(&library, proof) {
        panic!("{fault}");
    }
}

/// A change of a source, and a word of what must then go wrong.
pub struct Mutation {
    pub from: &'static str,
    pub to: &'static str,
    pub caught_by: &'static str,
}

/// `proof` fails, and for the right reason, for every one of the `mutations` of `source`.
pub fn catches(source: &str, proof: Proof, mutations: &[Mutation]) {
    let mut complaints = Vec::new();
    for Mutation { from, to, caught_by } in mutations {
        let Some(library) = Library::mutant(source, from, to) else { return };
        match under_two_schedules(&library, proof) {
            Ok(()) => complaints.push(format!("as good with {to:?} for {from:?}")),
            Err(fault) if !fault.contains(caught_by) => complaints.push(format!("{from:?} → {to:?} shows as: {fault}")),
            Err(_) => {}
        }
    }
    assert!(complaints.is_empty(), "{source}:\n{}", complaints.join("\n"));
}
