//! Texts that stay as they were when their file was read from its beginning, and what they may take together.
//!
//! A program reads a file in pieces, which must be of one text. A program that opens `metrics` a thousand times and
//! reads one byte of each would have a thousand copies kept; so the oldest texts go, and are made anew if they are read
//! on.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Memory that all texts of the mount may take, in bytes: three times the metrics of 4096 targets.
const KEPT_MAX: usize = 32 << 20;

/// Bytes that a text counts for at least: its place in the list.
const LEAST: usize = 128;

type Place = Mutex<Option<Arc<[u8]>>>;

/// The text of one open file.
#[derive(Default)]
pub struct KeptText(Arc<Place>);

impl KeptText {
    /// The text as it was kept, if the read goes on in it; a read at its beginning wants a new one.
    pub fn kept(&self, offset: u64) -> Option<Arc<[u8]>> {
        if offset == 0 { None } else { self.0.lock().clone() }
    }
}

struct Entry {
    place: Weak<Place>,
    text: Weak<[u8]>,
    counts: usize,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Entry>,
    sum: usize,
}

/// All texts that are kept.
#[derive(Default)]
pub struct KeptTexts(Mutex<Inner>);

impl KeptTexts {
    /// Keeps a text for the reads of its file that follow.
    pub fn keep(&self, file: &KeptText, text: impl Into<Arc<[u8]>>) -> Arc<[u8]> {
        let text: Arc<[u8]> = text.into();
        *file.0.lock() = Some(text.clone());
        let counts = text.len().max(LEAST);
        let mut inner = self.0.lock();
        inner.sum += counts;
        inner.entries.push_back(Entry {
            place: Arc::downgrade(&file.0),
            text: Arc::downgrade(&text),
            counts,
        });
        while inner.sum > KEPT_MAX
            && let Some(oldest) = inner.entries.pop_front()
        {
            inner.sum -= oldest.counts;
            if let (Some(place), Some(text)) = (oldest.place.upgrade(), oldest.text.upgrade()) {
                // The file may have a newer text by now, which has an entry of its own.
                let mut kept = place.lock();
                kept.take_if(|kept| Arc::ptr_eq(kept, &text));
            }
        }
        text
    }
}

/// The part of a text that a read asks for.
pub fn slice(text: &[u8], offset: u64, len: usize) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[from..from.saturating_add(len).min(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_between_its_reads() {
        let (texts, file) = (KeptTexts::default(), KeptText::default());
        assert!(file.kept(0).is_none() && file.kept(5).is_none());
        texts.keep(&file, &b"first"[..]);
        assert_eq!(file.kept(5).unwrap().as_ref(), b"first");
        assert!(file.kept(0).is_none(), "the beginning is always new");
        texts.keep(&file, &b"second"[..]);
        assert_eq!(file.kept(1).unwrap().as_ref(), b"second");
    }

    #[test]
    fn all_texts_together_are_bounded() {
        const MIB: usize = 1 << 20;
        let texts = KeptTexts::default();
        let files: Vec<KeptText> = (0..100).map(|_| KeptText::default()).collect();
        for file in &files {
            texts.keep(file, vec![0; MIB]);
        }
        let there = || files.iter().map(|file| file.kept(1).is_some()).collect::<Vec<_>>();
        assert_eq!(there().iter().filter(|there| **there).count(), KEPT_MAX / MIB);
        assert!(there()[99] && !there()[0], "the oldest go");
        // Read again from its beginning, a file counts once, and what it was before goes by itself.
        for _ in 0..100 {
            texts.keep(&files[50], vec![1; MIB]);
        }
        assert!(files[50].kept(1).is_some());
        drop(files);
        for _ in 0..2 * KEPT_MAX / LEAST {
            texts.keep(&KeptText::default(), &b""[..]);
        }
        let inner = texts.0.lock();
        assert!(inner.sum <= KEPT_MAX && inner.entries.len() <= KEPT_MAX / LEAST);
    }
}
