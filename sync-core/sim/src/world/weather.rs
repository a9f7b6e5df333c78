//! How the network behaves by itself.

use std::time::Duration;

/// How the network behaves.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Longest delay of a frame one way.
    pub delay_max: Duration,
    /// Longest delay of a registry call, before and after it takes effect.
    pub registry_delay_max: Duration,
    /// Longest time until the server notices that a connection is gone. Frames under way still arrive meanwhile.
    pub linger_max: Duration,
    /// Longest delay of a job on a replica: edits may come before it.
    pub job_delay_max: Duration,
    /// Of a thousand attempts to connect, so many fail.
    pub dial_failures: u64,
    /// Bytes that a connection takes before the client has read them; one frame more.
    pub buffer_bytes: usize,
    /// How often a node looks at the heads of its documents, where several share the registry.
    pub poll_interval: Duration,
    /// How nodes hear of what others appended.
    pub hints: Hints,
}

/// How nodes hear of what others appended.
#[derive(Debug, Clone, Copy)]
pub struct Hints {
    /// Of a thousand, so many are lost.
    pub lost: u64,
    /// Of a thousand of those, a node notices so many times that it has missed something.
    pub noticed: u64,
    /// Of a thousand that are not lost, so many come twice.
    pub doubled: u64,
    /// Longest delay of one.
    pub delay_max: Duration,
}

impl Hints {
    /// Every hint comes, soon.
    pub const PROMPT: Self = Self {
        lost: 0,
        noticed: 0,
        doubled: 0,
        delay_max: Duration::from_millis(5),
    };

    /// No hint comes.
    pub const NONE: Self = Self {
        lost: 1_000,
        ..Self::PROMPT
    };

    /// Some come late, some twice, some never.
    pub const UNRELIABLE: Self = Self {
        lost: 300,
        noticed: 300,
        doubled: 300,
        delay_max: Duration::from_secs(3),
    };
}

/// Everything is quick.
pub const CALM: Weather = Weather {
    delay_max: Duration::from_millis(10),
    registry_delay_max: Duration::from_millis(2),
    linger_max: Duration::ZERO,
    job_delay_max: Duration::ZERO,
    dial_failures: 0,
    buffer_bytes: 64 * 1024,
    poll_interval: Duration::from_secs(1),
    hints: Hints::PROMPT,
};

/// Everything takes its time, and nobody notices that anybody is gone.
pub const ROUGH: Weather = Weather {
    delay_max: Duration::from_millis(300),
    registry_delay_max: Duration::from_millis(50),
    linger_max: Duration::from_secs(20),
    hints: Hints::UNRELIABLE,
    ..CALM
};
