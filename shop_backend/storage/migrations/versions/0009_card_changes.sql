-- What operators did to card keys: who, when, how many, and why. Each row is written with what it tells about.

CREATE TABLE card_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    action text NOT NULL CHECK (action IN ('import', 'disable', 'enable', 'export', 'rotate')),
    sku text REFERENCES products,  -- null: of several products
    cards bigint NOT NULL DEFAULT 0 CHECK (cards >= 0),
    actor text NOT NULL,
    reason text NOT NULL
);
CREATE INDEX card_changes_sku ON card_changes (sku, action);
INSERT INTO card_changes (action, sku, cards, actor, reason)
SELECT 'import', sku, count(*), 'migration', 'imported before changes were written down' FROM cards GROUP BY sku;
