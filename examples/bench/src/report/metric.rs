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
    /// The server's processor time for each client in a second, in milliseconds.
    MillisPerClientSecond,
    /// The server's processor time for each client who came, in milliseconds.
    JoinMillis,
    /// From the first byte asked for until the last client had everything, in milliseconds.
    LastMillis,
    /// Bytes that each client received.
    BytesPerClient,
    /// The same as a multiple of the bytes of the changes that were missed.
    BytesOfOwn,
    /// Changes that came besides the snapshot.
    ChangesBeside,
    /// Resident memory of the server for each connection, in KiB.
    KibPerClient,
    /// The same after each connection has received a message of 1 MB.
    KibAfterLarge,
    /// The server's processor time for each new connection, in microseconds.
    ConnectMicros,
    /// Kills of the server.
    Kills,
    /// Changes that somebody had been shown before a kill, and that were gone after it.
    Lost,
    /// How much more memory the server needed than without the reader who stopped; while clients join, than before.
    GrowthMegabytes,
    /// How long the reader who had stopped needed for what it had missed, in seconds.
    CatchUpSeconds,
    /// What the reader who had stopped has in the end.
    LateCompletePercent,
    /// 99 of 100 latencies of the others, as a multiple of those when nobody stops.
    P99OfControl,
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
    pub(crate) const ALL: [Self; 28] = [
        Self::CpuMicros,
        Self::UserMicros,
        Self::SystemMicros,
        Self::ChangesPerFrame,
        Self::DeliveredPerSecond,
        Self::CompletePercent,
        Self::AcksPerChange,
        Self::MillisPerClientSecond,
        Self::JoinMillis,
        Self::LastMillis,
        Self::BytesPerClient,
        Self::BytesOfOwn,
        Self::ChangesBeside,
        Self::KibPerClient,
        Self::KibAfterLarge,
        Self::ConnectMicros,
        Self::Kills,
        Self::Lost,
        Self::GrowthMegabytes,
        Self::CatchUpSeconds,
        Self::LateCompletePercent,
        Self::P99OfControl,
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
            Scenario::FanOut | Scenario::Pairs | Scenario::Presence => Self::CpuMicros,
            Scenario::Idle => Self::KibPerClient,
            Scenario::Join | Scenario::Resume => Self::JoinMillis,
            Scenario::SlowReader => Self::GrowthMegabytes,
            Scenario::Kills => Self::Lost,
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
            Self::MillisPerClientSecond => "server_cpu_ms_per_client_second",
            Self::JoinMillis => "server_cpu_ms_per_client",
            Self::LastMillis => "all_served_ms",
            Self::BytesPerClient => "bytes_per_client",
            Self::BytesOfOwn => "bytes_of_missed",
            Self::ChangesBeside => "changes_beside_snapshot",
            Self::KibPerClient => "rss_kib_per_client",
            Self::KibAfterLarge => "rss_kib_per_client_after_large",
            Self::ConnectMicros => "connect_cpu_us",
            Self::Kills => "kills",
            Self::Lost => "lost",
            Self::GrowthMegabytes => "rss_growth_mb",
            Self::CatchUpSeconds => "catch_up_s",
            Self::LateCompletePercent => "late_complete_percent",
            Self::P99OfControl => "p99_of_control",
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
            Self::MillisPerClientSecond => "server CPU, ms per client and second",
            Self::JoinMillis => "server CPU, ms per client",
            Self::LastMillis => "all served, ms",
            Self::BytesPerClient => "bytes per client",
            Self::BytesOfOwn => "of the missed changes",
            Self::ChangesBeside => "changes beside the snapshot",
            Self::KibPerClient => "RSS per client, KiB",
            Self::KibAfterLarge => "after 1 MB, KiB",
            Self::ConnectMicros => "server CPU, us per connection",
            Self::Kills => "kills",
            Self::Lost => "lost",
            Self::GrowthMegabytes => "RSS growth, MB",
            Self::CatchUpSeconds => "caught up after, s",
            Self::LateCompletePercent => "of it complete, %",
            Self::P99OfControl => "p99, of that when nobody stops",
            Self::P50Millis => "p50, ms",
            Self::P99Millis => "p99, ms",
            Self::BytesPerDelivered => "bytes per delivered change",
            Self::RssMegabytes => "RSS, MB",
            Self::ServerPercent => "server, % of a core",
            Self::GeneratorPercent => "generator, %",
        }
    }
}
