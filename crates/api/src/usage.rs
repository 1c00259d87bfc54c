//! What an account used.
//!
//! Token exchanges are counted here, in the same transaction that permits them. Messages and bytes
//! stand at zero until relays report them: the columns are there, the reporting is not.

use axum::{Json, extract::State};
use skytale_wire::http::Usage;

use crate::{caller::Caller, problem::Refusal, router::App};

pub(crate) async fn show(State(app): State<App>, caller: Caller) -> Result<Json<Usage>, Refusal> {
    let account_id = caller.reader()?;
    let months = app.store.usage(account_id).await?;
    Ok(Json(Usage { account_id, months }))
}
