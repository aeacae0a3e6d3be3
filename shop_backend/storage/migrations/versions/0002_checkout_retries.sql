-- An order whose checkout the provider refuses waits, so that the others get theirs.

ALTER TABLE orders
    ADD COLUMN next_checkout_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN checkout_tries integer NOT NULL DEFAULT 0;
DROP INDEX orders_without_checkout;
CREATE INDEX orders_without_checkout ON orders (next_checkout_at) WHERE state = 'pending' AND checkout_id IS NULL;
