//! What was typed becomes a request.
