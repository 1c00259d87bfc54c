//! A received message as Python holds it.

use pyo3::{prelude::*, types::PyBytes};
use skytale_sdk as sdk;

use crate::{
    channel::draft,
    errors,
    native::Native,
    operation::{Kind, Operation},
};

/// A received message. Its fields are made when they are looked at.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Message {
    message: Native<sdk::Message>,
}

impl Message {
    pub(crate) fn new(message: Native<sdk::Message>) -> Self {
        Self { message }
    }

    pub(crate) fn message(&self, py: Python<'_>) -> PyResult<&sdk::Message> {
        self.message
            .get()
            .map_err(|error| errors::raise(py, &error))
    }
}

/// A reply on its way to who asked. It counts as taken when it arrives there, and not when nobody waits
/// any more.
pub(crate) struct Reply(pub(crate) Native<sdk::Answered>);

impl<'py> IntoPyObject<'py> for Reply {
    type Target = Message;
    type Output = Bound<'py, Message>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, Message>> {
        let (beside, answered) = self.0.take_apart();
        Bound::new(py, Message::new(beside.beside(answered.take())))
    }
}

#[pymethods]
impl Message {
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.message(py)?.id().to_string())
    }

    #[getter]
    fn seq(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.message(py)?.seq().0)
    }

    #[getter]
    fn epoch(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.message(py)?.epoch().0)
    }

    #[getter]
    fn sender(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.message(py)?.sender().to_string())
    }

    #[getter]
    fn label(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.message(py)?.label().to_owned())
    }

    #[getter]
    fn verified(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.message(py)?.verified())
    }

    /// Milliseconds since 1970.
    #[getter]
    fn sent(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.message(py)?.sent().0)
    }

    #[getter]
    fn content_type(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.message(py)?.content_type().to_owned())
    }

    #[getter]
    fn reply_to(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let question = self.message(py)?.in_reply_to();
        Ok(question.map(|id| id.to_string()))
    }

    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = self.message(py)?.text();
        let text = text.map_err(|error| errors::raise(py, &error))?;
        Ok(text.into_pyobject(py)?.into_any())
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.message(py)?.payload()))
    }

    fn reply(&self, py: Python<'_>, payload: &[u8], content_type: String) -> PyResult<Operation> {
        let message = self.message(py)?.clone();
        let draft = draft(py, payload, content_type, None)?;
        Ok(Operation::new(Kind::InOrder, async move {
            let sent = message.reply(draft).await?;
            Ok((sent.id.to_string(), sent.seq.0))
        }))
    }

    fn ack(&self, py: Python<'_>) -> PyResult<Operation> {
        let message = self.message(py)?.clone();
        Ok(Operation::silent(Kind::Change, async move {
            message.ack().await
        }))
    }
}
