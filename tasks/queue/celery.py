"""The Celery app: a broker and nothing else. Messages carry one chunk id; the ledger decides."""

import socket

from celery import Celery
from kombu import Queue

from tasks.registry import Registry
from tasks.settings import Settings
from tasks.states import RunKind

SCORE_QUEUE = "score"
# A consumer waits for messages without a limit: a Redis that vanished without a word (a pulled cable) shows only by
# probes that nobody answers, here after 5 + 3 x 2 seconds.
PROBES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
KEEPALIVE = {getattr(socket, name): value for name, value in PROBES.items() if hasattr(socket, name)}


def queue_name(model: str, lane: RunKind) -> str:
    """The Celery queue of a model's lane, such as ``poet.arena``."""
    return f"{model}.{lane.value}"


def make_app(settings: Settings) -> Celery:
    """A Celery app for ``settings``. Every value below answers a way in which Redis or Celery loses or repeats work."""
    app = Celery("touchstone", broker=settings.redis_url, include=["tasks.queue.jobs"])
    names = Registry.load(settings.models).names if settings.models.exists() else []
    app.conf.update(
        task_queues=[Queue(SCORE_QUEUE), *(Queue(queue_name(name, lane)) for name in names for lane in RunKind)],
        task_default_queue=SCORE_QUEUE,
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 2,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "socket_keepalive_options": KEEPALIVE,
            "health_check_interval": 10,
            "retry_on_timeout": False,
        },
    )
    return app


app = make_app(Settings.from_environment())
