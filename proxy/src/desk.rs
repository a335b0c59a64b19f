//! Where the consoles leave their orders for the process.

use std::sync::{Arc, Mutex, PoisonError};

use pgdog_admin::control::{Ordered, Outcome};
use pgdog_admin::{Control, Order};
use pgdog_backend::Target;
use pgdog_config::{Config, PoolSettings};
use pgdog_session::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::build::Builder;

/// An order, and where its outcome is waited for.
pub(crate) type Placed = (Order, oneshot::Sender<Outcome>);

/// The consoles' way to the control thread, which does one thing at a time.
#[derive(Debug)]
pub(crate) struct Desk {
    orders: mpsc::UnboundedSender<Placed>,
    /// What is in force.
    config: Mutex<Arc<Config>>,
    builder: Arc<Builder>,
    runtime: Arc<Runtime>,
}

impl Desk {
    /// A desk, and where its orders come out.
    pub(crate) fn new(
        config: Config,
        builder: Arc<Builder>,
        runtime: Arc<Runtime>,
    ) -> (Self, mpsc::UnboundedReceiver<Placed>) {
        let (orders, placed) = mpsc::unbounded_channel();
        let desk = Self {
            orders,
            config: Mutex::new(Arc::new(config)),
            builder,
            runtime,
        };
        (desk, placed)
    }

    /// Another configuration is in force.
    pub(crate) fn in_force(&self, config: Config) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

impl Control for Desk {
    fn order(&self, order: Order) -> Ordered {
        let (reply, outcome) = oneshot::channel();
        let _ = self.orders.send((order, reply));
        Box::pin(async {
            let lost = |_| Err("the proxy is shutting down".to_owned());
            outcome.await.unwrap_or_else(lost)
        })
    }

    fn config(&self) -> Arc<Config> {
        self.config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn target(&self, pool: &PoolSettings) -> Result<Target, String> {
        let tcp = self.runtime.live().tcp;
        let target = self.builder.target(pool, tcp);
        target.map_err(|error| format!("{error:#}"))
    }
}
