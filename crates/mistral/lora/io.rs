//! PEFT's folder: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::adapter::{Adapter, AdapterLayout};
use super::config::LoraConfig;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::weights::folder::read_text;
use crate::weights::safetensors::{FloatType, SafeTensorsFile, WEIGHT_DTYPES};
use crate::weights::save::{Staged, sync_folder, write_tensors};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// Whether the folder holds an adapter rather than a model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG).is_file() && !folder.join("config.json").is_file()
}

/// The configuration of the adapter in a folder.
///
/// # Errors
/// `ZA_MODEL_NOT_FOUND`, `ZA_IO`, `ZA_ADAPTER_CONFIG`.
pub fn read_config(folder: &Path) -> Result<LoraConfig> {
    let path = folder.join(CONFIG);
    let text = read_text(&path)?.ok_or_else(|| Error::ModelNotFound {
        path: folder.to_path_buf(),
        problem: format!("the folder holds no {CONFIG}"),
    })?;
    LoraConfig::from_json(&text, &path.display().to_string())
}

/// Loads an adapter of that base model.
///
/// # Errors
/// As [`read_config`]; `ZA_ADAPTER_BASE` where names or shapes are not those that the configuration gives on this base;
/// what the safetensors reader gives.
pub fn load(folder: &Path, base: &Config) -> Result<Adapter> {
    let config = read_config(folder)?;
    let layout = AdapterLayout::planned(&config, base)?;
    let file = SafeTensorsFile::open(&folder.join(TENSORS))?;
    let place = file.path.display().to_string();
    let foreign = |problem: String| Error::AdapterBase { place: place.clone(), problem };
    if layout.pairs.is_empty() {
        return Err(foreign("its target_modules mean no projection of this model".to_owned()));
    }
    let mut places = Vec::with_capacity(layout.tensors.len());
    for spec in &layout.tensors {
        let found = file.find(&spec.name).ok_or_else(|| foreign(format!("it has no tensor `{}`", spec.name)))?;
        if found.shape != spec.shape {
            let problem =
                format!("tensor `{}` has shape {:?}, this model needs {:?}", spec.name, found.shape, spec.shape);
            return Err(foreign(problem));
        }
        if FloatType::of(found.dtype).is_none() {
            let (tensor, found) = (spec.name.clone(), found.dtype.to_string());
            return Err(Error::TensorDtype { place, tensor, found, accepted: WEIGHT_DTYPES });
        }
        places.push(found);
    }
    let known: HashSet<&str> = layout.tensors.iter().map(|spec| spec.name.as_str()).collect();
    if let Some(extra) = file.tensors().iter().find(|tensor| !known.contains(tensor.name.as_str())) {
        return Err(foreign(format!("it has a tensor `{}` that this model has no place for", extra.name)));
    }
    // Memory is asked for when the file has turned out to hold as much.
    let mut adapter = Adapter::zeroed(config, layout)?;
    for (spec, place) in adapter.layout.tensors.iter().zip(places) {
        file.read_into(place, &mut adapter.data[spec.range.clone()])?;
    }
    Ok(adapter)
}

/// Saves the adapter (f32) as PEFT does; `base` is written as `base_model_name_or_path`, else what the configuration has.
///
/// # Errors
/// `ZA_DISK_FULL`, `ZA_IO`; nothing is left half-written under a final name.
pub fn save(adapter: &Adapter, folder: &Path, base: Option<&str>) -> Result<Vec<PathBuf>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create the folder", error))?;
    let tensors: Vec<_> = adapter.layout.tensors.iter().collect();
    let mut file = Staged::create(folder.join(TENSORS))?;
    write_tensors(&mut file, &tensors, FloatType::F32, |tensor, start, out| {
        let first = tensor.range.start + start;
        out.copy_from_slice(&adapter.data[first..first + out.len()]);
    })?;
    let config = Staged::json(folder.join(CONFIG), &adapter.config.to_json(base))?;
    let written = vec![file.publish()?, config.publish()?];
    sync_folder(folder)?;
    Ok(written)
}
