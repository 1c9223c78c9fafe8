//! The initiator as pure state machines: `now` is an argument, effects come back.
