-- Orders and their events in partitions: an order's id begins with the number of its partition
-- (stock/order_ids.py), so that a look-up by id goes to one table, and no table grows for ever.
-- storage/partitions.py makes those after the first.

-- Orders of before have ids that begin anyhow; they keep a partition of their own, above all new numbers.
ALTER TABLE order_events DROP CONSTRAINT order_events_order_id_fkey;
ALTER TABLE cards DROP CONSTRAINT cards_order_id_fkey;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_order_id_fkey;
ALTER TABLE payments DROP CONSTRAINT payments_order_id_fkey;
ALTER TABLE refunds DROP CONSTRAINT refunds_order_id_fkey;
ALTER TABLE outbox DROP CONSTRAINT outbox_order_id_fkey;

ALTER TABLE orders RENAME TO orders_before;
ALTER TABLE orders_before RENAME CONSTRAINT orders_pkey TO orders_before_pkey;
ALTER INDEX orders_user RENAME TO orders_before_user;
ALTER INDEX orders_sku RENAME TO orders_before_sku;
ALTER INDEX orders_unpaid RENAME TO orders_before_unpaid;
ALTER INDEX orders_without_checkout RENAME TO orders_before_without_checkout;

CREATE TABLE orders (LIKE orders_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id);
ALTER TABLE orders ADD PRIMARY KEY (id), ADD FOREIGN KEY (sku) REFERENCES products;
CREATE INDEX orders_user ON orders (user_id, created_at DESC);
CREATE INDEX orders_sku ON orders (sku);
CREATE INDEX orders_unpaid ON orders (next_poll_at) WHERE state IN ('pending', 'expired');
CREATE INDEX orders_without_checkout ON orders (next_checkout_at) WHERE state = 'pending' AND checkout_id IS NULL;

ALTER TABLE order_events RENAME TO order_events_before;
ALTER TABLE order_events_before DROP CONSTRAINT order_events_pkey;
DROP INDEX order_events_order;
ALTER TABLE order_events_before ALTER COLUMN id DROP IDENTITY;
ALTER TABLE order_events_before ADD CONSTRAINT order_events_before_pkey PRIMARY KEY (order_id, id);

-- A sequence and not an identity column: partitions take those only since PostgreSQL 17.
CREATE SEQUENCE order_events_seq;
SELECT setval('order_events_seq', coalesce(max(id), 0) + 1, false) FROM order_events_before;
CREATE TABLE order_events (LIKE order_events_before INCLUDING DEFAULTS) PARTITION BY RANGE (order_id);
ALTER TABLE order_events ALTER COLUMN id SET DEFAULT nextval('order_events_seq');
ALTER SEQUENCE order_events_seq OWNED BY order_events.id;
ALTER TABLE order_events ADD PRIMARY KEY (order_id, id);

DO $$
DECLARE
    -- The number in the smallest old id; 65,536 partitions are enough when there are no old ones.
    first_before bigint := (
        SELECT least(65536, ('x' || left(id::text, 8))::bit(32)::bigint)
        FROM (SELECT min(id::text) AS id FROM orders_before) AS smallest
    );
    bound text := lpad(to_hex(coalesce(first_before, 65536)), 8, '0') || '-0000-0000-0000-000000000000';
BEGIN
    IF first_before = 0 THEN
        RAISE EXCEPTION 'an order id begins with 00000000: move that order away, then migrate again';
    END IF;
    -- The driver takes a percent sign for a parameter, so format() is of no use here.
    EXECUTE 'ALTER TABLE orders ATTACH PARTITION orders_before FOR VALUES FROM ('
        || quote_literal(bound) || ') TO (MAXVALUE)';
    EXECUTE 'ALTER TABLE order_events ATTACH PARTITION order_events_before FOR VALUES FROM ('
        || quote_literal(bound) || ') TO (MAXVALUE)';
END
$$;

CREATE TABLE orders_p00000 PARTITION OF orders FOR VALUES
    FROM ('00000000-0000-0000-0000-000000000000') TO ('00000001-0000-0000-0000-000000000000');
CREATE TABLE order_events_p00000 PARTITION OF order_events FOR VALUES
    FROM ('00000000-0000-0000-0000-000000000000') TO ('00000001-0000-0000-0000-000000000000');

ALTER TABLE order_events ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE cards ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE deliveries ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE payments ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE refunds ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE outbox ADD FOREIGN KEY (order_id) REFERENCES orders;

-- A dead letter that was queued again no longer speaks against its order.
ALTER TABLE dead_letters ADD COLUMN replayed_at timestamptz;
