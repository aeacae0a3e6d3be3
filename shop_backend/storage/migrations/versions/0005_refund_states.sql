-- A refund is pending (to be asked for), requested (the provider is at it), refunded, or failed (an operator's turn).

ALTER TABLE refunds
    DROP CONSTRAINT refunds_state_check,
    ADD CONSTRAINT refunds_state_check CHECK (state IN ('pending', 'requested', 'refunded', 'failed'));
DROP INDEX refunds_pending;
CREATE INDEX refunds_pending ON refunds (next_attempt_at) WHERE state IN ('pending', 'requested');
CREATE INDEX refunds_open ON refunds (state) WHERE state <> 'refunded';
