//! Whether the tracker is well, for whoever asks.

use super::Service;
use crate::limits;
use tokio::sync::Mutex;

/// When the store was last asked whether it answers, in seconds of the monotonic clock, and whether it did.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<(u64, bool)>>);

impl Service {
    /// Whether the store answers. Strangers may ask this, so it is found out once a second and by one at a time.
    pub(crate) async fn is_well(&self) -> bool {
        let mut last = self.health.0.lock().await;
        let now_s = self.uptime_s();
        match *last {
            Some((at_s, is_well)) if now_s.saturating_sub(at_s) < limits::HEALTH_LIFE_S => is_well,
            _ => {
                let is_well = self.store.deployment().await.is_ok();
                *last = Some((now_s, is_well));
                is_well
            }
        }
    }
}
