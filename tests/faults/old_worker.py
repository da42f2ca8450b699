"""A Celery app as another version may have had it: the same Redis, none of today's tasks."""

from celery import Celery

from tasks.settings import Settings

app = Celery("old", broker=Settings.from_environment().redis_url)
app.conf.task_ignore_result = True
