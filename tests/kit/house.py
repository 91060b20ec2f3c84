"""The plan of the house, kept by tests/test_tidy.py: who imports whom, what is pure, whose vendor."""

PACKAGES = ("rangefinder", "shard_server", "router", "ranker_service", "training")
TOOLS = ("scripts", "benchmarks", "tests")

# Who may import whom beside itself. The tools may import everything.
SERVICES = {"shard_server", "router", "ranker_service"}
MAY_IMPORT: dict[str, set[str]] = {
    "rangefinder": set(),
    "rangefinder.cli": {"rangefinder", "training", *SERVICES},
    **{service: {"rangefinder"} for service in SERVICES},
    # What is learned is served: training computes the features that the ranker will.
    "training": {"rangefinder", "ranker_service"},
    **{tool: {"rangefinder", "rangefinder.cli", "training", *SERVICES, *TOOLS} for tool in TOOLS},
}

# What decides, and nothing else: clock, randomness and I/O are arguments.
PURE = (
    "rangefinder/candidates.py",
    "rangefinder/client/affinity.py",
    "rangefinder/client/retry.py",
    "rangefinder/client/standing.py",
    "rangefinder/cli/bench/lists.py",
    "rangefinder/cli/bench/schedule.py",
    "rangefinder/cluster_map.py",
    "rangefinder/concurrency_limit.py",
    "rangefinder/deadline.py",
    "rangefinder/errors.py",
    "rangefinder/hashing.py",
    "rangefinder/keys.py",
    "rangefinder/merge.py",
    "rangefinder/metric.py",
    "rangefinder/width.py",
    "ranker_service/features.py",
    "router/attempts.py",
    "router/budget.py",
    "router/choice.py",
    "router/coverage.py",
    "router/degradation.py",
    "router/health.py",
    "router/hedging.py",
    "router/pace.py",
    "router/pipeline.py",
    "router/ranking.py",
    "router/window.py",
    "shard_server/calibration.py",
    "shard_server/scoring.py",
    "training/evaluation.py",
    "training/interactions.py",
    "training/item_features.py",
    "training/list_rows.py",
    "training/metrics.py",
)
IMPURE = {"asyncio", "grpc", "os", "random", "time"}
IMPURE_OF_OURS = {"rangefinder.edge", "rangefinder.storage", "rangefinder.telemetry"}

# Where calls are known, and where messages are too: the edge, and the files that translate at it.
EDGE = (
    "rangefinder/edge/*",
    "rangefinder/client/router.py",
    "rangefinder/client/stream_call.py",
    # A load generator's own way to call, and the yardstick of calls.
    "rangefinder/cli/bench/calls.py",
    "rangefinder/cli/bench/echo.py",
    "router/node_link.py",
    "router/ranker_link.py",
)
MESSAGES = (
    *EDGE,
    "rangefinder/cli/connection.py",
    "rangefinder/client/batch.py",
    "rangefinder/client/client.py",
    "rangefinder/client/stream.py",
    "rangefinder/cli/status.py",
    "router/batch_message.py",
    "router/certificate.py",
    "router/cluster.py",
    "router/ranker_link.py",
    "router/recommend_answer.py",
    "router/recommend_requests.py",
    "router/recommendation.py",
    "router/item_reads.py",
    "router/items.py",
    "router/requests.py",
    "router/retrieval.py",
    "router/retrieve_stream.py",
    "router/serve.py",
    "router/service*",
    "ranker_service/serve.py",
    "ranker_service/service.py",
    "ranker_service/wire.py",
    "shard_server/serve.py",
    "shard_server/search_connections.py",
    "shard_server/service.py",
    "shard_server/wire.py",
)

# Vendor -> the places that may import it: one file each, where not said.
VENDORS: dict[str, tuple[str, ...]] = {
    "click": ("rangefinder/cli/*",),
    "grpc": EDGE,
    # Its two ends: who answers, and who asks.
    "grpc_health": ("rangefinder/edge/server.py", "rangefinder/edge/readiness.py"),
    "grpc_reflection": ("rangefinder/edge/server.py",),
    "grpc_status": ("rangefinder/edge/status.py",),
    "hnswlib": ("shard_server/index/hnsw.py",),
    "implicit": ("training/factors.py",),
    "lightgbm": ("training/ranker.py",),
    "matplotlib": ("rangefinder/cli/bench/plots.py",),
    "onnx": ("training/export.py",),
    "onnxmltools": ("training/export.py",),
    "onnxruntime": ("ranker_service/model.py",),
    # Metrics of this process, and of others.
    "prometheus_client": ("rangefinder/telemetry/metrics.py", "rangefinder/telemetry/gathered.py"),
    "psutil": ("rangefinder/telemetry/process.py",),
    # Typed columns, and the Parquet that users bring: uses that share nothing.
    "pyarrow": (
        "shard_server/attributes.py",
        "shard_server/build/parquet_source.py",
        "training/read/delimited.py",
        "training/read/parquet.py",
        "training/items_file.py",
    ),
    "pydantic": ("rangefinder/documents.py",),
    "rich": ("rangefinder/cli/*",),
    "scipy": ("training/*",),
    "threadpoolctl": ("training/factors.py",),
    "structlog": ("rangefinder/telemetry/logs.py",),
    "uvloop": ("rangefinder/process.py",),
    "xxhash": ("rangefinder/hashing.py",),
    "yaml": ("rangefinder/documents.py",),
}
