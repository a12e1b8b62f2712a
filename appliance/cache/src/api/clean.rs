//! `DELETE /api/cache/clean`: forgets a project.

use http::StatusCode;

use super::{Answer, no_content};
use crate::answer::message;
use crate::auth::Grant;
use crate::call::Call;

/// Takes the same time however much there is; a put that began earlier cannot land any more.
pub(super) async fn clean(call: &Call<'_>, grant: &Grant) -> Answer {
    let project = &grant.project;
    let (account, name) = (project.account.as_str(), project.project.as_str());
    call.shared.sessions.forget(project);
    match call.shared.store.clean(account, name).await {
        Ok(()) => {
            log::info!(
                "{project} was cleaned by {}, request {}",
                grant.fingerprint,
                call.id
            );
            Ok(no_content())
        }
        Err(error) => {
            call.shared.complain("clean a project, not", &error);
            let text = "Failed to clean the project";
            Err(message(StatusCode::INTERNAL_SERVER_ERROR, text).into())
        }
    }
}
