//! Texts that are only read: each is made when it is read at its beginning, and kept for the reads that follow.

use std::sync::Arc;

use super::{Reader, Verbs};
use crate::bug;
use crate::fs::answer::DataAnswer;
use crate::fs::context::Context;
use crate::fs::errno::Errno;
use crate::fs::kept::{KeptText, slice};
use crate::fs::metrics::Format;
use crate::fs::stats::StatsPage;
use crate::fs::status;
use crate::runtime::Unit;

/// The metrics of so many targets are rendered in a few milliseconds, which is not worth a thread.
const AT_ONCE: usize = 64;

/// Which text it is.
pub enum Content {
    /// IDENTIFY DEVICE, as the target sent it.
    Ident(Arc<Unit>),
    /// A target's `stats`.
    Stats(Arc<Unit>),
    /// A target's `devlink/N`.
    Devlink(Arc<Unit>, u8),
    /// `metrics`.
    Metrics,
}

impl Content {
    /// A target's `ident`: ENXIO while the target is down.
    pub fn ident(context: &Context, unit: Arc<Unit>) -> Result<Self, Errno> {
        match context.runtime.inspect(&unit, |device| device.is_up()) {
            true => Ok(Self::Ident(unit)),
            false => Err(Errno::ENXIO),
        }
    }

    fn render(&self, context: &Context) -> Result<Vec<u8>, Errno> {
        let runtime = &context.runtime;
        Ok(match self {
            Self::Ident(unit) => runtime.inspect(unit, |device| device.ident().to_vec()),
            Self::Stats(unit) => StatsPage::take(runtime, unit).to_string().into_bytes(),
            Self::Devlink(unit, n) => status::devlink(runtime, unit, *n).ok_or(Errno::ESTALE)?.into_bytes(),
            Self::Metrics => {
                bug::here("metrics");
                context.metrics(Format::Prometheus).into_bytes()
            }
        })
    }
}

/// An open text.
pub struct OpenPage {
    context: Arc<Context>,
    content: Content,
    text: KeptText,
}

impl OpenPage {
    /// Opens a text.
    pub fn open(context: &Arc<Context>, content: Content) -> Arc<Self> {
        Arc::new(Self { context: context.clone(), content, text: KeptText::default() })
    }

    fn show(&self, offset: u64, len: usize, answer: impl FnOnce(Result<&[u8], Errno>)) {
        match self.content.render(&self.context) {
            Ok(text) => answer(Ok(slice(&self.context.texts.keep(&self.text, text), offset, len))),
            Err(errno) => answer(Err(errno)),
        }
    }
}

impl Verbs for OpenPage {
    fn read(self: &Arc<Self>, offset: u64, len: usize, _: Reader, answer: impl DataAnswer) {
        if let Some(text) = self.text.kept(offset) {
            return answer(Ok(slice(&text, offset, len)));
        }
        // The metrics of thousands of targets take time, and requests of the kernel must not wait for that.
        if matches!(self.content, Content::Metrics) && self.context.runtime.units().len() > AT_ONCE {
            let file = self.clone();
            // An answer that is dropped says EIO by itself.
            return self.context.renderer.run(move || file.show(offset, len, answer));
        }
        self.show(offset, len, answer);
    }
}
