//! Loading: files come in pieces, and nothing of them is kept but what the model is made of.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::wasm_bindgen;
use zephyr_mistral::Storage;
use zephyr_mistral::weights::Arriving;

use crate::failure::Failure;
use crate::memory;
use crate::model::WasmModel;
use crate::tokenizer::WasmTokenizer;

fn storage(name: &str) -> Result<Storage, Failure> {
    let text = || format!("the form of the weights is {name:?}. Remedy: Take float32, bfloat16, nf4 or gguf.");
    Storage::parse(name).ok_or_else(|| Failure::new("ZA_CONFIG_INVALID", text()))
}

/// A model that arrives.
#[wasm_bindgen]
pub struct WasmLoader {
    arriving: Option<Arriving>,
    piece: Vec<u8>,
}

#[wasm_bindgen]
impl WasmLoader {
    /// A GGUF file. `form`: how its weights are kept; with `keep` they stay as they are where that can be.
    #[wasm_bindgen(js_name = ofGguf)]
    pub fn of_gguf(form: &str, keep: bool) -> Result<Self, Failure> {
        Ok(Self { arriving: Some(Arriving::gguf(storage(form)?, keep, memory::left())), piece: Vec::new() })
    }

    /// The safetensors of a folder in Hugging Face's layout, after the texts of config.json, generation_config.json and
    /// model.safetensors.index.json. With an index its shards come under their names.
    #[wasm_bindgen(js_name = ofSafetensors)]
    pub fn of_safetensors(
        config: &str,
        generation: Option<String>,
        index: Option<String>,
        form: &str,
    ) -> Result<Self, Failure> {
        let (generation, index) = (generation.as_deref(), index.as_deref());
        let arriving = Arriving::safetensors(config, generation, index, storage(form)?, memory::left())?;
        Ok(Self { arriving: Some(arriving), piece: Vec::new() })
    }

    /// The shards that the index names.
    pub fn shards(&mut self) -> Result<Vec<String>, Failure> {
        Ok(self.arriving()?.shards().into_iter().map(str::to_owned).collect())
    }

    fn arriving(&mut self) -> Result<&mut Arriving, Failure> {
        let text = "the loading is over. Remedy: Begin another.";
        self.arriving.as_mut().ok_or_else(|| Failure::new("ZA_ARGUMENT", text))
    }

    /// The next file, with its length in bytes.
    pub fn begin(&mut self, name: &str, bytes: f64) -> Result<(), Failure> {
        Ok(self.arriving()?.begin(name, bytes as u64)?)
    }

    /// The next bytes of the file. Give large ones in parts: they are copied.
    pub fn push(&mut self, bytes: &Uint8Array) -> Result<(), Failure> {
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(bytes.length() as usize, 0);
        bytes.copy_to(&mut piece);
        self.arriving()?.push(&piece)?;
        self.piece = piece;
        Ok(())
    }

    /// The tokenizer of a GGUF file, once, as soon as its header is there: before the weights, which then use the memory
    /// that making it took.
    pub fn tokenizer(&mut self, template: Option<String>) -> Result<Option<WasmTokenizer>, Failure> {
        let Some(metadata) = self.arriving()?.take_tokenizer() else { return Ok(None) };
        Ok(Some(WasmTokenizer::from_gguf(&metadata, template.as_deref())?))
    }

    /// The model, when all is there.
    pub fn finish(&mut self) -> Result<WasmModel, Failure> {
        self.arriving()?;
        self.piece = Vec::new();
        match self.arriving.take() {
            Some(arriving) => Ok(WasmModel::new(arriving.finish()?)),
            None => unreachable!("asked for above"),
        }
    }
}
