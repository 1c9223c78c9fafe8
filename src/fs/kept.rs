//! Pages of text that stay as they were read from their beginning, and what they may take together.
//!
//! A program reads a page in pieces, which must be of one text. Whoever opens `metrics` a thousand times and reads a byte of
//! each would have a thousand copies kept; so the oldest go, and are made anew if they are read on.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// What all pages of the mount may take, in bytes: three times the metrics of 4096 targets.
const KEPT_MAX: usize = 32 << 20;

/// What a page counts for at least: its place in the list.
const LEAST: usize = 128;

type Text = Mutex<Option<Arc<[u8]>>>;

/// The page of one handle.
#[derive(Default)]
pub struct Page(Arc<Text>);

impl Page {
    /// The page as it was kept, if the read goes on in it; a read at its beginning wants a new one.
    pub fn kept(&self, offset: u64) -> Option<Arc<[u8]>> {
        if offset == 0 { None } else { self.0.lock().clone() }
    }
}

struct Entry {
    page: Weak<Text>,
    text: Weak<[u8]>,
    counts: usize,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Entry>,
    sum: usize,
}

/// All pages that are kept.
#[derive(Default)]
pub struct Kept(Mutex<Inner>);

impl Kept {
    /// Keeps a page for the reads that follow.
    pub fn keep(&self, page: &Page, text: impl Into<Arc<[u8]>>) -> Arc<[u8]> {
        let text: Arc<[u8]> = text.into();
        *page.0.lock() = Some(text.clone());
        let counts = text.len().max(LEAST);
        let mut inner = self.0.lock();
        inner.sum += counts;
        inner.entries.push_back(Entry { page: Arc::downgrade(&page.0), text: Arc::downgrade(&text), counts });
        while inner.sum > KEPT_MAX
            && let Some(oldest) = inner.entries.pop_front()
        {
            inner.sum -= oldest.counts;
            if let (Some(page), Some(text)) = (oldest.page.upgrade(), oldest.text.upgrade()) {
                // It may have a newer text by now, which has an entry of its own.
                let mut kept = page.lock();
                kept.take_if(|kept| Arc::ptr_eq(kept, &text));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_kept_between_its_reads() {
        let (kept, page) = (Kept::default(), Page::default());
        assert!(page.kept(0).is_none() && page.kept(5).is_none());
        kept.keep(&page, &b"first"[..]);
        assert_eq!(page.kept(5).unwrap().as_ref(), b"first");
        assert!(page.kept(0).is_none(), "the beginning is always new");
        kept.keep(&page, &b"second"[..]);
        assert_eq!(page.kept(1).unwrap().as_ref(), b"second");
    }

    #[test]
    fn all_pages_together_are_bounded() {
        const MIB: usize = 1 << 20;
        let kept = Kept::default();
        let pages: Vec<Page> = (0..100).map(|_| Page::default()).collect();
        for page in &pages {
            kept.keep(page, vec![0; MIB]);
        }
        let there = || pages.iter().map(|page| page.kept(1).is_some()).collect::<Vec<_>>();
        assert_eq!(there().iter().filter(|there| **there).count(), KEPT_MAX / MIB);
        assert!(there()[99] && !there()[0], "the oldest go");
        // Read again from its beginning, a page counts once, and what it was before goes by itself.
        for _ in 0..100 {
            kept.keep(&pages[50], vec![1; MIB]);
        }
        assert!(pages[50].kept(1).is_some());
        drop(pages);
        for _ in 0..2 * KEPT_MAX / LEAST {
            kept.keep(&Page::default(), &b""[..]);
        }
        let inner = kept.0.lock();
        assert!(inner.sum <= KEPT_MAX && inner.entries.len() <= KEPT_MAX / LEAST);
    }
}
