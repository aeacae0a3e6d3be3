-- Caches ask which version of the products is the newest. Whoever changes one raises it, by a trigger: also psql.

CREATE TABLE catalog_version (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version bigint NOT NULL
);

-- Milliseconds, so that a database made anew is not taken for an older one by a cache that outlived it.
CREATE FUNCTION raise_catalog_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalog_version
    SET version = greatest(version + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    RETURN NULL;
END
$$;
INSERT INTO catalog_version (version) VALUES ((extract(epoch FROM clock_timestamp()) * 1000)::bigint);

CREATE TRIGGER products_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON products
    FOR EACH STATEMENT EXECUTE FUNCTION raise_catalog_version();
