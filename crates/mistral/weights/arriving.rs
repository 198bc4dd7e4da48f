//! A model whose files arrive piece by piece, as over a network.
//!
//! Every tensor is converted as soon as its last byte is there, and its bytes are let go: at most the model, one tensor as the
//! file has it, and a piece are in memory. What a model of that size needs is compared with a limit as soon as the header is
//! there, before most of the file is.

use super::gguf::{Gguf, Plan, check_types, keeps_tensors, kept_bytes};
use super::index::{INDEX, Index, missing};
use super::read_at::ReadAt;
use super::safetensors::{FloatType, Header, read_floats};
use super::{LoadReport, Loaded, Source, folder};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::layout::{Layout, TensorSpec};
use crate::storage::{Storage, Unfinished};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A header is looked for when so many bytes are there, and then each time that their number has doubled.
const FIRST_LOOK: usize = 1 << 16;

/// Tokens whose keys and values are counted as needed: a conversation of some turns.
const CONVERSATION: u64 = 1024;

/// Rows of activations that are counted as needed.
const ROWS: u64 = 512;

/// The bytes of a file that are there and not let go: `[start, start + bytes.len())` of `size`.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    size: u64,
}

#[derive(Clone, Default)]
struct Arrived(Arc<RwLock<Window>>);

impl Arrived {
    fn with<T>(&self, work: impl FnOnce(&mut Window) -> T) -> T {
        work(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&self) -> u64 {
        self.with(|window| window.start + window.bytes.len() as u64)
    }
}

impl ReadAt for Arrived {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).size)
    }

    /// Bytes that are not there yet are an `UnexpectedEof` as well.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let window = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let start = offset.checked_sub(window.start).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| window.bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What is known of the file that arrives.
enum Contents {
    /// Nothing until so many bytes are there.
    Unknown {
        next_look: usize,
    },
    Gguf(Box<Gguf<Arrived>>),
    SafeTensors(Header),
}

/// A tensor that is wanted: its bytes in the file, its place in the file's table and in the layout.
struct Wanted {
    range: Range<u64>,
    index: usize,
    place: usize,
}

struct File {
    path: PathBuf,
    /// Which one of the index's it is.
    shard: Option<usize>,
    arrived: Arrived,
    contents: Contents,
    /// In the order of the file, the last first.
    wanted: Vec<Wanted>,
}

/// How a model's files are laid out.
enum Kind {
    Gguf { plan: Option<Plan> },
    SafeTensors(Shards),
}

/// The safetensors of a folder.
struct Shards {
    config: Config,
    /// With one each tensor is taken from its own shard.
    index: Option<Index>,
    /// The shards that have begun.
    begun: HashSet<usize>,
    taken: HashSet<String>,
    unused: Vec<String>,
    dtypes: BTreeMap<String, usize>,
}

/// A model that arrives.
pub struct Arriving {
    kind: Kind,
    storage: Storage,
    /// Whether a GGUF file stays as it is where all of it can be kept and any of it is quantised.
    keep: bool,
    limit: u64,
    file: Option<File>,
    model: Option<Unfinished>,
}

impl Arriving {
    /// A GGUF file, in that form; with `keep` it stays as it is where it is quantised and all its types can be kept. `limit`:
    /// bytes of memory that can be had.
    pub fn gguf(storage: Storage, keep: bool, limit: u64) -> Self {
        Self { kind: Kind::Gguf { plan: None }, storage, keep, limit, file: None, model: None }
    }

    /// The safetensors of an HF folder, one file after the other. `generation` is the text of generation_config.json, `index`
    /// that of model.safetensors.index.json, whose shards come under their names.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT`, `ZA_MODEL_CONFIG`, `ZA_MODEL_UNSUPPORTED`, `ZA_TENSOR_MISSING`.
    pub fn safetensors(
        config: &str,
        generation: Option<&str>,
        index: Option<&str>,
        storage: Storage,
        limit: u64,
    ) -> Result<Self> {
        let mut config = Config::from_json(config, "config.json")?;
        if let Some(text) = generation {
            folder::take_generation_config(&mut config, text, "generation_config.json")?;
        }
        let index = index.map(|text| Index::read(text, INDEX)).transpose()?;
        if let Some(index) = &index {
            index.check(&config, &Layout::new(&config))?;
        }
        let (begun, taken, unused, dtypes) = Default::default();
        let kind = Kind::SafeTensors(Shards { config, index, begun, taken, unused, dtypes });
        Ok(Self { kind, storage, keep: false, limit, file: None, model: None })
    }

    /// The names of the shards that the index names, sorted; none without one.
    pub fn shards(&self) -> Vec<&str> {
        match &self.kind {
            Kind::SafeTensors(shards) => {
                shards.index.iter().flat_map(|index| &index.shards).map(|(name, _)| name.as_str()).collect()
            }
            Kind::Gguf { .. } => Vec::new(),
        }
    }

    /// Begins the next file, of that many bytes in all.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT` where the file before is not whole, and for one that the index does not name, or that was there before.
    pub fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        self.end_file()?;
        let mut shard = None;
        if let Kind::SafeTensors(shards) = &mut self.kind
            && let Some(index) = &shards.index
        {
            let place = index.place_of(name).ok_or_else(|| {
                Error::format(INDEX, format!("it does not name the file {name}: files are known by their names"))
            })?;
            if !shards.begun.insert(place) {
                return Err(Error::format(name, "the file came twice"));
            }
            shard = Some(place);
        }
        let arrived = Arrived::default();
        arrived.with(|window| window.size = size);
        let contents = Contents::Unknown { next_look: FIRST_LOOK };
        self.file = Some(File { path: PathBuf::from(name), shard, arrived, contents, wanted: Vec::new() });
        Ok(())
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// Those of [`super::load_as`], and `ZA_MODEL_TOO_LARGE`.
    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Err(Error::format("the model", "bytes came before the name of their file"));
        };
        let (length, size) = file.arrived.with(|window| {
            window.bytes.extend_from_slice(piece);
            (window.bytes.len(), window.size)
        });
        let end = file.arrived.end();
        if end > size {
            return Err(Error::format(
                &file.path.display().to_string(),
                format!("it has more bytes than the {size} announced"),
            ));
        }
        if let Contents::Unknown { next_look } = file.contents {
            if length < next_look && end < size {
                return Ok(());
            }
            match self.open() {
                Ok(()) => {}
                // The header goes on in what has not come yet.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof && end < size => {
                    if let Some(file) = &mut self.file {
                        file.contents = Contents::Unknown { next_look: 2 * length };
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.take()
    }

    /// The `tokenizer.*` keys of a GGUF file, once, as soon as its header is there: what is made of them and thrown away then
    /// makes room for the weights. [`Loaded`] has them otherwise.
    pub fn take_tokenizer(&mut self) -> Option<Map<String, Value>> {
        match &mut self.kind {
            Kind::Gguf { plan: Some(plan) } => plan.tokenizer.take(),
            _ => None,
        }
    }

    /// The whole model.
    ///
    /// # Errors
    /// `ZA_MODEL_FORMAT` for a file that is cut off, `ZA_TENSOR_MISSING`.
    pub fn finish(mut self) -> Result<Loaded> {
        self.end_file()?;
        let missing = || Error::format("the model", "it has no file");
        match (self.kind, self.model) {
            (Kind::Gguf { plan: Some(plan) }, Some(model)) => Ok(plan.loaded(model)),
            (Kind::SafeTensors(shards), Some(model)) => {
                let Shards { taken, mut unused, dtypes, index, begun, .. } = shards;
                if let Some(index) = &index
                    && let Some(place) = (0..index.shards.len()).find(|place| !begun.contains(place))
                {
                    return Err(index.shard_missing(place, PathBuf::from(&index.shards[place].0)));
                }
                let absent = model.layout().tensors.iter().find(|spec| !taken.contains(&spec.name));
                if let Some(spec) = absent {
                    return Err(Error::TensorMissing {
                        place: "the model's files".to_string(),
                        tensor: spec.name.clone(),
                        remedy: "Give all files of the model, and config.json and weights of the same one.".to_string(),
                    });
                }
                unused.sort();
                let report = LoadReport { unused, dtypes: dtypes.into_iter().collect() };
                Ok(Loaded { weights: model.finish(), source: Source::HfFolder, tokenizer_gguf: None, report })
            }
            _ => Err(missing()),
        }
    }

    fn end_file(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let (end, size) = (file.arrived.end(), file.arrived.with(|window| window.size));
        if end < size || matches!(file.contents, Contents::Unknown { .. }) {
            let problem = format!("{end} of its {size} bytes came: it is cut off");
            return Err(Error::format(&file.path.display().to_string(), problem));
        }
        Ok(())
    }

    /// Reads the header of the file, and what it says of the model.
    fn open(&mut self) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.contents = look(&self.kind, file)?;
        }
        self.plan()
    }

    /// What of a file that is now known is wanted; asks for the model's memory with the first.
    fn plan(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let what = || format!("The model in {}", file.path.display());
        match (&file.contents, &mut self.kind) {
            (Contents::Gguf(gguf), Kind::Gguf { plan }) => {
                gguf.check_whole()?;
                if self.keep && keeps_tensors(&gguf.tensors) {
                    self.storage = Storage::Gguf;
                }
                let storage = self.storage;
                let stored: u64 = gguf.tensors.iter().map(|tensor| tensor.range.end - tensor.range.start).sum();
                // Before the layout, whose places must fit the address space.
                if storage == Storage::Gguf {
                    fits(&file.path, stored, self.limit)?;
                }
                let values =
                    gguf.tensors.iter().map(|tensor| tensor.shape.iter().map(|&size| size as u64).product::<u64>());
                fits(&file.path, values.sum(), usize::MAX as u64)?;
                let made = Plan::new(gguf)?;
                check_types(&file.path, made.tensors.iter().map(|index| &gguf.tensors[*index]), storage)?;
                let bytes = match storage {
                    Storage::Gguf => made.tensors.iter().map(|index| kept_bytes(&gguf.tensors[*index])).sum(),
                    storage => stored_bytes(&made.config, &made.layout, storage),
                };
                let largest = gguf.tensors.iter().map(|tensor| tensor.range.end - tensor.range.start).max();
                fits(&file.path, bytes + largest.unwrap_or(0) + working_bytes(&made.config), self.limit)?;
                self.model = Some(Unfinished::new(made.config.clone(), made.layout.clone(), storage, &what())?);
                let places = made.tensors.iter().enumerate();
                let wanted =
                    places.map(|(place, &index)| Wanted { range: gguf.tensors[index].range.clone(), index, place });
                file.wanted = wanted.collect();
                *plan = Some(made);
            }
            (Contents::SafeTensors(header), Kind::SafeTensors(shards)) => {
                let Shards { config, index, taken, unused, dtypes, .. } = shards;
                if self.model.is_none() {
                    let storage = self.storage;
                    let layout = Layout::new(config);
                    let largest = header.tensors.iter().map(|tensor| tensor.range.end - tensor.range.start).max();
                    let bytes = stored_bytes(config, &layout, storage) + largest.unwrap_or(0);
                    fits(&file.path, bytes + working_bytes(config), self.limit)?;
                    self.model = Some(Unfinished::new(config.clone(), layout, storage, &what())?);
                }
                let Some(model) = &self.model else { return Ok(()) };
                let name = file.path.display().to_string();
                let own = index.as_ref().zip(file.shard);
                if let Some((index, own)) = own {
                    let here: HashSet<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
                    let absent = |spec: &&TensorSpec| {
                        index.shard_of(&spec.name) == Some(own) && !here.contains(spec.name.as_str())
                    };
                    if let Some(spec) = model.layout().tensors.iter().find(absent) {
                        return Err(missing(&name, &spec.name, config));
                    }
                }
                for (place_in_file, tensor) in header.tensors.iter().enumerate() {
                    let specs = &model.layout().tensors;
                    let Some(place) = specs.iter().position(|spec| spec.name == tensor.name) else {
                        // A tied model's head is the embedding once more; older files carry it.
                        if !(config.tie_word_embeddings && tensor.name == "lm_head.weight") {
                            unused.push(tensor.name.clone());
                        }
                        continue;
                    };
                    if own.is_some_and(|(index, own)| index.shard_of(&tensor.name) != Some(own)) {
                        unused.push(format!("{} (copy in {name})", tensor.name));
                        continue;
                    }
                    folder::check(&specs[place], tensor, &file.path)?;
                    // Which of two is the model's, only an index can say.
                    if !taken.insert(tensor.name.clone()) {
                        let problem =
                            format!("tensor `{}` was in another file before: {INDEX} must be given too", tensor.name);
                        return Err(Error::format(&name, problem));
                    }
                    *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
                    file.wanted.push(Wanted { range: tensor.range.clone(), index: place_in_file, place });
                }
            }
            _ => {}
        }
        file.wanted.sort_by_key(|wanted| std::cmp::Reverse((wanted.range.start, wanted.range.end)));
        Ok(())
    }

    /// Converts the tensors that are whole, and lets go of what nobody wants any more.
    fn take(&mut self) -> Result<()> {
        let (Some(file), Some(model)) = (&mut self.file, &mut self.model) else { return Ok(()) };
        let end = file.arrived.end();
        while let Some(wanted) = file.wanted.pop_if(|wanted| wanted.range.end <= end) {
            match (&file.contents, &self.kind) {
                (Contents::Gguf(gguf), Kind::Gguf { plan: Some(plan) }) => {
                    plan.take(gguf, &gguf.tensors[wanted.index], wanted.place, self.storage, model)?;
                }
                (Contents::SafeTensors(header), _) => {
                    let tensor = &header.tensors[wanted.index];
                    let Some(float) = FloatType::of(tensor.dtype) else { continue };
                    model.read(wanted.place, |start, out| {
                        let first = tensor.range.start + (start * float.bytes()) as u64;
                        read_floats(&file.arrived, float, first, out)
                            .map_err(|error| Error::io(&file.path, "read", error))
                    })?;
                }
                _ => {}
            }
        }
        let next = file.wanted.last().map_or(end, |wanted| wanted.range.start.min(end));
        let whole = file.wanted.last().map_or(0, |wanted| wanted.range.end - next);
        file.arrived.with(|window| {
            let gone = ((next - window.start) as usize).min(window.bytes.len());
            window.bytes.drain(..gone);
            window.start += gone as u64;
            // Grown by doubling it could take twice its tensor.
            window.bytes.reserve_exact((whole as usize).saturating_sub(window.bytes.len()));
        });
        Ok(())
    }
}

/// Reads the header of a file.
fn look(kind: &Kind, file: &File) -> Result<Contents> {
    Ok(match kind {
        Kind::Gguf { .. } => Contents::Gguf(Box::new(Gguf::read(file.arrived.clone(), &file.path)?)),
        Kind::SafeTensors(_) => Contents::SafeTensors(Header::read(&file.arrived, &file.path)?),
    })
}

fn fits(path: &Path, needed: u64, limit: u64) -> Result<()> {
    if needed <= limit {
        return Ok(());
    }
    Err(Error::ModelTooLarge { place: path.display().to_string(), needed, limit })
}

/// Bytes of weights that are made from values.
fn stored_bytes(config: &Config, layout: &Layout, storage: Storage) -> u64 {
    let values = layout.len as u64;
    match storage {
        Storage::F32 => 4 * values,
        Storage::Nf4 => {
            let tables = (config.vocab_size * config.hidden_size) as u64;
            values * 33 / 64 + tables * 4
        }
        _ => 2 * values,
    }
}

/// Bytes of activations, and of keys and values of a conversation.
fn working_bytes(config: &Config) -> u64 {
    let [hidden, inner, heads, kv_heads, dim, layers] =
        [config.hidden_size, config.intermediate_size, config.heads, config.kv_heads, config.head_dim, config.layers]
            .map(|size| size as u64);
    let row = 4 * hidden + 3 * inner + 2 * (heads + kv_heads) * dim;
    4 * ROWS * row + 8 * CONVERSATION * layers * kv_heads * dim + 8 * config.vocab_size as u64
}

#[cfg(test)]
mod test;
