//! Traces for a collector that speaks OTLP: a span for each statement and for each of its parts.
//!
//! Spans are those of `tracing` whose target is [`TRACE`]; the log does not show them, and without a collector they are not
//! made. They tell who, how long and how many rows, and no text of a statement: a collector is another house.

use std::sync::LazyLock;

use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Error, Place, Result};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Traces;

/// Sends spans to the collector, a batch at a time, until it is shut down.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// The configured one, if one is. It connects when it first has something to send; to be called within a runtime.
    /// Errors: `Invalid` for an address that is none.
    pub fn new(traces: &Traces) -> Result<Option<Self>> {
        let Some(endpoint) = &traces.endpoint else { return Ok(None) };
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        if endpoint.starts_with("https://") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        let exporter = exporter.build().map_err(|cause| {
            Error::invalid(format!("\"{endpoint}\" is no address of a collector: {cause}"))
                .with_hint("write it as http://host:4317 or https://host:4317")
                .at(Place::Key("traces.endpoint".to_owned()))
        })?;
        // What a client asks for is done; of the others, as many as are wanted.
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(Resource::builder().with_service_name("nexus-gateway").build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// What takes the spans of `tracing`.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> OpenTelemetryLayer<S, SdkTracer> {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer(TRACE))
    }

    /// Sends what is left. It blocks for as long as that takes, some seconds at most.
    pub fn shut_down(&self) {
        if let Err(cause) = self.provider.shutdown() {
            tracing::warn!(%cause, "the last spans could not be sent");
        }
    }
}

/// Makes a span part of the trace that a client names as in W3C Trace Context, section 3.2: `traceparent: 00-…-…-01`. What is
/// no such name begins a trace of its own.
pub fn join(span: &Span, parent: Option<&str>) {
    static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);
    if let Some(parent) = parent
        && !span.is_disabled()
    {
        // It fails only where nothing takes spans.
        let _ = span.set_parent(PROPAGATOR.extract(&Header(parent)));
    }
}

struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}
