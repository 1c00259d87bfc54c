//! What can go wrong while the server starts, by what the operator can do about it. Refusals of
//! single requests are in `problem.rs`.

use crate::store::Failure;

/// Why the server does not run. The text names the next step and neither paths nor secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration asks for something that cannot be or must not be: change it.
    #[error("{0}")]
    Misuse(&'static str),
    /// The certificate or its key is of no use: the text says which file and why.
    #[error("{0}: put it right, or start without tls_cert and tls_key")]
    Certificate(skytale_certificate::BadPair),
    /// The system refused a file or an address: see the cause, and try again.
    #[error("{0}")]
    Unreachable(&'static str, #[source] std::io::Error),
    /// The address for health and metrics cannot be listened on: choose another.
    #[error("cannot listen for health and metrics on {0}")]
    Admin(std::net::SocketAddr, #[source] std::io::Error),
    /// What is on disk is not what was written there: restore it. Nothing was overwritten.
    #[error("{0}")]
    Damaged(&'static str),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable => Self::Unreachable(
                "the API server's database does not answer: is its disk full, or its server busy or gone?",
                std::io::ErrorKind::Other.into(),
            ),
            Failure::Damaged => {
                Self::Damaged("the API server's database is damaged; restore it from a backup")
            }
        }
    }
}
