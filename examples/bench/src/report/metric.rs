//! What can be measured.

use crate::cli::Scenario;

/// A number that a scenario measures. In the order of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// The server's processor time per delivered change, in microseconds.
    CpuMicros,
    /// Of that, in the program.
    UserMicros,
    /// Of that, in the kernel.
    SystemMicros,
    /// Changes in a message, on average: under load this decides the cost.
    ChangesPerFrame,
    /// Deliveries in a second.
    DeliveredPerSecond,
    /// Deliveries of those that there had to be.
    CompletePercent,
    /// Messages that acknowledge something, for each change.
    AcksPerChange,
    /// Median time from the write to the arrival, in milliseconds.
    P50Millis,
    /// The same of 99 of 100.
    P99Millis,
    /// Bytes that clients receive for each delivered change.
    BytesPerDelivered,
    /// The server's resident memory, in megabytes.
    RssMegabytes,
    /// The server's processor time of one core.
    ServerPercent,
    /// The generator's: near 100, the generator may be what was measured.
    GeneratorPercent,
}

impl Metric {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::CpuMicros,
        Self::UserMicros,
        Self::SystemMicros,
        Self::ChangesPerFrame,
        Self::DeliveredPerSecond,
        Self::CompletePercent,
        Self::AcksPerChange,
        Self::P50Millis,
        Self::P99Millis,
        Self::BytesPerDelivered,
        Self::RssMegabytes,
        Self::ServerPercent,
        Self::GeneratorPercent,
    ];

    /// What a scenario is about: servers are compared by it.
    pub(crate) const fn chief(scenario: Scenario) -> Self {
        match scenario {
            Scenario::FanOut | Scenario::Pairs => Self::CpuMicros,
        }
    }

    /// Its name in files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CpuMicros => "server_cpu_us_per_delivered",
            Self::UserMicros => "server_user_us_per_delivered",
            Self::SystemMicros => "server_system_us_per_delivered",
            Self::ChangesPerFrame => "changes_per_frame",
            Self::DeliveredPerSecond => "delivered_per_s",
            Self::CompletePercent => "complete_percent",
            Self::AcksPerChange => "acks_per_change",
            Self::P50Millis => "p50_ms",
            Self::P99Millis => "p99_ms",
            Self::BytesPerDelivered => "bytes_per_delivered",
            Self::RssMegabytes => "rss_mb",
            Self::ServerPercent => "server_cpu_percent",
            Self::GeneratorPercent => "generator_cpu_percent",
        }
    }

    /// Its name for people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::CpuMicros => "server CPU, us per delivered change",
            Self::UserMicros => "user",
            Self::SystemMicros => "system",
            Self::ChangesPerFrame => "changes per frame",
            Self::DeliveredPerSecond => "delivered/s",
            Self::CompletePercent => "complete, %",
            Self::AcksPerChange => "acks per change",
            Self::P50Millis => "p50, ms",
            Self::P99Millis => "p99, ms",
            Self::BytesPerDelivered => "bytes per delivered change",
            Self::RssMegabytes => "RSS, MB",
            Self::ServerPercent => "server, % of a core",
            Self::GeneratorPercent => "generator, %",
        }
    }
}
