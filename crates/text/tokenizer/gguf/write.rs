//! A tokenizer as the metadata that llama.cpp reads.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::super::{Special, Tokenizer};
use super::{PRE_TOKENIZERS, convert, filler, kind};
use crate::error::{Error, Result};

/// What stands for a space in SentencePiece's tokens.
const MARK: &str = "\u{2581}";

/// A tokenizer as GGUF keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTokenizer {
    /// The `tokenizer.*` keys in llama.cpp's order. Whole numbers are unsigned, those of `token_type` signed; scores are floats.
    pub metadata: Map<String, Value>,
    /// What the keys have no words for, in sentences. Empty: the file's tokenizer is this one.
    pub notes: Vec<String>,
}

impl Tokenizer {
    /// The tokenizer for a GGUF file: `template` is its chat template, `rows` the model's vocabulary (ids without a token are
    /// filled up to it), `stops` the ids at which the model stops, the first as the end token where the tokenizer names none.
    ///
    /// What is written is read back by [`Tokenizer::from_gguf`], and compared.
    ///
    /// # Errors
    /// `ZA_TOKENIZER_EXPORT` for what llama.cpp does not have: a model other than BPE, a pre-tokenizer or normalizer that has no
    /// name there, merges that no scores can order.
    pub fn to_gguf(&self, template: &str, rows: usize, stops: &[u32]) -> Result<GgufTokenizer> {
        let file: Value = serde_json::from_str(&self.to_json()?).map_err(|e| super::super::broken(e.to_string()))?;
        let mut notes = Vec::new();
        let mut metadata = Map::new();
        let mut put = |key: &str, value: Value| {
            metadata.insert(format!("tokenizer.{key}"), value);
        };
        let tokens = Tokens::of(&file, self.unk.as_ref(), rows, &mut notes)?;
        let model = Model::of(&file)?;
        match model {
            Model::ByteLevel(name) => {
                put("ggml.model", json!("gpt2"));
                put("ggml.pre", json!(name));
            }
            Model::SentencePiece { .. } => {
                put("ggml.model", json!("llama"));
                put("ggml.pre", json!("default"));
            }
        }
        put("ggml.tokens", json!(tokens.texts));
        if let Model::SentencePiece { prefix } = model {
            put("ggml.scores", json!(scores(&file, &tokens.texts)?));
            put("ggml.token_type", json!(tokens.kinds));
            put("ggml.add_space_prefix", json!(prefix));
        } else {
            put("ggml.token_type", json!(tokens.kinds));
            put("ggml.merges", json!(merge_lines(&file)?));
        }
        let mut ends = Vec::from_iter(self.eos.as_ref().map(|eos| eos.id));
        for stop in stops {
            if !ends.contains(stop) {
                ends.push(*stop);
            }
        }
        for (name, token) in [("bos", &self.bos), ("unknown", &self.unk), ("padding", &self.pad)] {
            if let Some(token) = token {
                put(&format!("ggml.{name}_token_id"), json!(token.id));
            }
        }
        for (name, id) in ["eos", "eot", "eom"].iter().zip(&ends) {
            put(&format!("ggml.{name}_token_id"), json!(id));
        }
        if ends.len() > 3 {
            notes.push(format!("the model also stops at {:?}: GGUF names three tokens at most", &ends[3..]));
        }
        let affix = |ids: &[u32], special: &Option<Special>| match (ids, special) {
            ([], _) => Some(false),
            ([id], Some(special)) if special.id == *id => Some(true),
            _ => None,
        };
        for (name, ids, special) in [("bos", &self.prefix, &self.bos), ("eos", &self.suffix, &self.eos)] {
            match affix(ids, special) {
                Some(added) => put(&format!("ggml.add_{name}_token"), json!(added)),
                None => notes.push(format!("the tokenizer puts the ids {ids:?} around a text, which GGUF cannot say")),
            }
        }
        put("chat_template", json!(template));
        check(&metadata, &file, &tokens)?;
        Ok(GgufTokenizer { metadata, notes })
    }
}

fn refused(reason: impl Into<String>) -> Error {
    Error::TokenizerExport { reason: reason.into() }
}

/// Texts and kinds by id.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<u64>,
}

impl Tokens {
    fn of(file: &Value, unknown: Option<&Special>, rows: usize, notes: &mut Vec<String>) -> Result<Self> {
        let mut texts: Vec<String> = (0..rows).map(filler).collect();
        let mut kinds = vec![kind::UNUSED; rows];
        let mut put = |text: &str, id: u64, of: u64| -> Result<()> {
            let place = usize::try_from(id).ok().filter(|id| *id < rows);
            let id = place.ok_or_else(|| refused(format!("token {text:?} has id {id}, the model has {rows} rows")))?;
            (texts[id], kinds[id]) = (text.to_string(), of);
            Ok(())
        };
        let bytes_fall_back = file["model"]["byte_fallback"] == true;
        for (text, id) in file["model"]["vocab"].as_object().into_iter().flatten() {
            let of = if bytes_fall_back && is_byte(text) { kind::BYTE } else { kind::NORMAL };
            put(text, id.as_u64().unwrap_or(u64::MAX), of)?;
        }
        for token in file["added_tokens"].as_array().into_iter().flatten() {
            let (Some(text), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else { continue };
            let of = match token["special"] == true {
                true if bytes_fall_back && unknown.is_some_and(|unknown| u64::from(unknown.id) == id) => kind::UNKNOWN,
                true => kind::CONTROL,
                false => kind::USER_DEFINED,
            };
            put(text, id, of)?;
            let flags: Vec<&str> =
                ["single_word", "lstrip", "rstrip"].into_iter().filter(|flag| token[*flag] == true).collect();
            if !flags.is_empty() {
                notes.push(format!("token {text:?} is {}, which GGUF cannot say", flags.join(" and ")));
            }
        }
        Ok(Self { texts, kinds })
    }
}

/// `<0x0A>`
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The two kinds of BPE that llama.cpp has.
#[derive(Clone, Copy)]
enum Model {
    /// GPT-2's: over bytes, within words that the pre-tokenizer of that name cuts.
    ByteLevel(&'static str),
    /// SentencePiece's: over characters; `prefix`: a space is put in front of a text.
    SentencePiece { prefix: bool },
}

impl Model {
    fn of(file: &Value) -> Result<Self> {
        let model = &file["model"];
        if model["type"] != "BPE" {
            return Err(refused(format!("its model is {}; llama.cpp's are kinds of BPE", model["type"])));
        }
        for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model[field].as_str().is_some_and(|text| !text.is_empty()) {
                return Err(refused(format!("its model has the {field} {}", model[field])));
            }
        }
        if model["byte_fallback"] == true {
            return sentence_piece(file);
        }
        let ignore_merges = model["ignore_merges"] == true;
        let pieces = comparable(&file["pre_tokenizer"]);
        let found = PRE_TOKENIZERS.iter().find(|own| {
            own.ignore_merges == ignore_merges
                && comparable(&(own.pieces)()) == pieces
                && comparable(&(own.normalizer)()) == comparable(&file["normalizer"])
        });
        match found {
            Some(own) if file["decoder"]["type"] == "ByteLevel" => Ok(Self::ByteLevel(own.names[0])),
            Some(_) => Err(refused(format!("its decoder is {}", file["decoder"]["type"]))),
            None => Err(refused(format!(
                "llama.cpp has no name for its pre_tokenizer {} with normalizer {} and ignore_merges {ignore_merges}",
                file["pre_tokenizer"], file["normalizer"]
            ))),
        }
    }
}

fn sentence_piece(file: &Value) -> Result<Model> {
    let (normalizer, pieces) = (&file["normalizer"], &file["pre_tokenizer"]);
    let steps: Vec<&Value> = match normalizer {
        Value::Null => Vec::new(),
        Value::Object(one) if one["type"] == "Sequence" => {
            one["normalizers"].as_array().into_iter().flatten().collect()
        }
        one => vec![one],
    };
    let is_mark =
        |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == MARK;
    let is_prefix = |step: &Value| step["type"] == "Prepend" && step["prepend"] == MARK;
    match (steps.as_slice(), pieces) {
        ([prefix, mark], Value::Null) if is_prefix(prefix) && is_mark(mark) => {
            Ok(Model::SentencePiece { prefix: true })
        }
        ([mark], Value::Null) if is_mark(mark) => Ok(Model::SentencePiece { prefix: false }),
        ([], one) if one["type"] == "Metaspace" && one["replacement"] == MARK && one["split"] != true => {
            Ok(Model::SentencePiece { prefix: one["prepend_scheme"] != "never" })
        }
        _ => Err(refused(format!("llama.cpp does not know its normalizer {normalizer} with pre_tokenizer {pieces}"))),
    }
}

/// Without what changes no ids, and without a sequence around one step.
fn comparable(step: &Value) -> Value {
    let mut step = step.clone();
    if let Some(map) = step.as_object_mut() {
        map.shift_remove("trim_offsets");
        for list in ["pretokenizers", "normalizers"] {
            let Some(Value::Array(steps)) = map.get_mut(list) else { continue };
            steps.iter_mut().for_each(|step| *step = comparable(step));
            if let [one] = steps.as_slice() {
                return one.clone();
            }
        }
    }
    step
}

fn merges(file: &Value) -> Result<Vec<(&str, &str)>> {
    let list = file["model"]["merges"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|merge| match merge {
            Value::Array(pair) => Some((pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
            Value::String(line) => line.split_once(' '),
            _ => None,
        })
        .map(|pair| pair.ok_or_else(|| refused("a merge of its model is no pair")))
        .collect()
}

/// One line a merge, as byte-level tokens hold no space.
fn merge_lines(file: &Value) -> Result<Vec<String>> {
    let line = |(left, right): (&str, &str)| match left.contains(' ') || right.contains(' ') {
        true => Err(refused(format!("the merge of {left:?} and {right:?} holds a space"))),
        false => Ok(format!("{left} {right}")),
    };
    merges(file)?.into_iter().map(line).collect()
}

/// SentencePiece's scores: of a token that merges make, less the later its first merge stands; of all others 0.
fn scores(file: &Value, texts: &[String]) -> Result<Vec<f64>> {
    let mut ranks: HashMap<String, f64> = HashMap::new();
    for (rank, (left, right)) in merges(file)?.into_iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(-(rank as f64));
    }
    // Not −0, which some readers print.
    Ok(texts.iter().map(|text| ranks.get(text).map_or(0.0, |score| score + 0.0)).collect())
}

/// Reads back what was written: the same tokens under the same ids, and the same merges in the same order.
fn check(metadata: &Map<String, Value>, file: &Value, tokens: &Tokens) -> Result<()> {
    let (again, _) = convert(metadata)?;
    let vocabulary = &again["model"]["vocab"];
    for (id, (text, of)) in tokens.texts.iter().zip(&tokens.kinds).enumerate() {
        if *of != kind::UNUSED && vocabulary[text] != json!(id) {
            return Err(refused(format!("the token {text:?} stands for several ids")));
        }
    }
    let (before, after) = (grouped(merges(file)?), grouped(merges(&again)?));
    if before == after {
        return Ok(());
    }
    let different = before.iter().zip(&after).find(|(before, after)| before != after);
    let token = different.map_or_else(
        || before.len().min(after.len()).to_string(),
        |(before, _)| format!("{:?}", before.first().map_or(String::new(), |(left, right)| format!("{left}{right}"))),
    );
    Err(refused(format!(
        "its merges are not those of a SentencePiece vocabulary, whose scores order every way to make a token (the first difference is at {token})"
    )))
}

/// Neighbouring merges that make the same token: their order among themselves has no effect on scores.
fn grouped<'a>(merges: Vec<(&'a str, &'a str)>) -> Vec<Vec<(&'a str, &'a str)>> {
    let made = |(left, right): &(&str, &str)| format!("{left}{right}");
    let mut groups: Vec<Vec<_>> = merges.chunk_by(|a, b| made(a) == made(b)).map(<[_]>::to_vec).collect();
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups
}
