//! Stop texts in a stream: found across token edges, never leaked, and nothing lost on a near miss.

/// Watches a stream of text pieces for stop texts. What may still become one is held back.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher for these texts; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new(), stopped: false }
    }

    /// Whether a stop text was found; what comes after it is dropped.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Adds a piece; returns the text that is now certain to belong to the answer (may be empty).
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return text;
        }
        let keep = self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// The end of the stream: what was held back belongs to the answer after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest end of `text` that begins `stop`.
fn begun(text: &str, stop: &str) -> usize {
    (1..stop.len()).rev().find(|&length| stop.is_char_boundary(length) && text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out: Vec<String> = pieces.iter().map(|piece| matcher.push(piece)).collect();
        out.push(matcher.finish());
        (out, matcher.stopped())
    }

    #[test]
    fn a_stop_across_pieces_never_leaks() {
        assert_eq!(
            run(&["fg"], &["de", "f", "g", "h"]),
            (vec!["de".into(), "".into(), "".into(), "".into(), "".into()], true)
        );
    }

    #[test]
    fn a_near_miss_loses_nothing() {
        let (out, stopped) = run(&["ghX"], &["f", "g", "h", "i"]);
        assert_eq!((out.concat().as_str(), stopped), ("fghi", false));
        let (out, stopped) = run(&["aab"], &["a", "a", "a", "b", "c"]);
        assert_eq!((out.concat().as_str(), stopped), ("a", true));
    }

    proptest! {
        #[test]
        fn equals_the_search_in_the_whole_text(
            pieces in prop::collection::vec("[ab€]{0,3}", 0..12),
            stops in prop::collection::vec("[ab€]{0,3}", 0..3),
        ) {
            let whole = pieces.concat();
            let at = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| whole.find(s.as_str()));
            // The stream ends at the stop that is complete first.
            let first = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| whole.find(s.as_str()).map(|at| at + s.len())).min();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (out, stopped) = run(&stops, &pieces);
            prop_assert_eq!(stopped, first.is_some());
            let out = out.concat();
            prop_assert!(whole.starts_with(&out));
            match at.min() {
                Some(at) => prop_assert!(out.len() >= at),
                None => prop_assert_eq!(&out, &whole),
            }
            if stopped {
                prop_assert!(stops.iter().all(|s| s.is_empty() || !out.contains(s)));
            }
        }
    }
}
