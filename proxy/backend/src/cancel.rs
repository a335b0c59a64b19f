//! Cancelling a server's query: a connection of its own that says which one and closes.

use std::time::Duration;

use pgdog_wire::startup::{CancelKey, write_cancel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::ServerError;
use crate::login::Target;

/// How long the server may take to close the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server to cancel what the connection with this key runs. Returns when the server has closed the connection,
/// which it does after the signal was sent: only then may the connection serve somebody else.
///
/// # Errors
///
/// [`ServerError`] when the server could not be reached.
pub async fn cancel(target: &Target, key: &CancelKey) -> Result<(), ServerError> {
    let work = async {
        let mut stream = target.open().await?;
        let mut out = Vec::new();
        write_cancel(&mut out, key);
        stream.write_all(&out).await?;
        stream.flush().await?;
        // The server answers nothing; it closes when it is done.
        let _ = stream.read(&mut [0; 16]).await;
        Ok(())
    };
    pgdog_net::timer::timeout(PATIENCE, work)
        .await
        .map_err(|_| ServerError::Timeout(PATIENCE))?
}
