"""The long-running parts: each is one coroutine that only ends by an error or by cancellation."""
