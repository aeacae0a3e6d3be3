-- Messages in the buyer's language, by mail and as text messages, about deliveries and refunds.

ALTER TABLE orders
    ADD COLUMN language text NOT NULL DEFAULT 'en',
    ADD COLUMN phone text NOT NULL DEFAULT '';

ALTER TABLE outbox
    ADD COLUMN channel text NOT NULL DEFAULT 'mail' CHECK (channel IN ('mail', 'sms')),
    ADD COLUMN occasion text NOT NULL DEFAULT 'delivered' CHECK (occasion IN ('delivered', 'refunding')),
    ADD COLUMN reference text,
    ADD COLUMN payment_id text,
    ALTER COLUMN card_id DROP NOT NULL,
    DROP CONSTRAINT outbox_card_id_key,
    ADD CONSTRAINT outbox_card_once UNIQUE (card_id, channel),
    ADD CONSTRAINT outbox_about CHECK ((occasion = 'delivered') = (card_id IS NOT NULL)),
    ADD CONSTRAINT outbox_payment CHECK ((occasion = 'refunding') = (payment_id IS NOT NULL));
UPDATE outbox SET reference = order_id || '-delivered';
ALTER TABLE outbox ALTER COLUMN reference SET NOT NULL;

DROP INDEX outbox_pending;
CREATE INDEX outbox_pending ON outbox (channel, next_attempt_at) WHERE state = 'pending';
CREATE INDEX outbox_unsent ON outbox (state) WHERE state <> 'sent';
CREATE INDEX outbox_reference ON outbox (reference, id);
