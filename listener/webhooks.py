"""For programs in Python that receive webhooks.

```python
from listener.webhooks import InvalidWebhook, verify

message_id = verify(secret, request.headers, await request.read())  # raises InvalidWebhook
```

docs/webhooks.md says what comes and how to handle it.
"""

from listener.infrastructure.webhooks.signature import TOLERANCE_S, InvalidWebhook, sign, verify

__all__ = ["TOLERANCE_S", "InvalidWebhook", "sign", "verify"]
